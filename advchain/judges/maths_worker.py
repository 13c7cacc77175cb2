"""Compare answers with math-verify, one JSON line in, one out, in a process that can be killed (RELIABILITY F6).

math-verify's own limit is an alarm inside the process, which a long sympy computation in C does not see; here it is off and the clock is
outside (maths.py).
"""

from __future__ import annotations

import json
import logging
import resource
import sys

MEMORY_BYTES = 4 << 30


def verdict(gold: str, answer: str) -> str:
    """Return right, wrong or unparsed (math-verify could read nothing in the answer)."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    readers = [LatexExtractionConfig(), ExprExtractionConfig()]
    wanted = parse(f"\\boxed{{{gold}}}", extraction_config=readers, parsing_timeout=None)
    given = parse(f"\\boxed{{{answer}}}", extraction_config=readers, parsing_timeout=None)
    if not given or not wanted:
        return "unparsed"
    return "right" if verify(wanted, given, timeout_seconds=None) else "wrong"


def reply(line: str) -> dict[str, str]:
    """Return {"verdict": ...} or {"error": type} of one request line."""
    request = json.loads(line)
    try:
        return {"verdict": verdict(request["gold"], request["answer"])}
    except MemoryError:
        raise  # the process is not to be trusted any more: die, be replaced
    except Exception as error:  # an answer that breaks the parser is a wrong answer, and the detail says so
        return {"error": type(error).__name__}


def main() -> None:
    """Serve until stdin closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    verdict("1", "1")  # the slow imports belong to the start, not to the first answer's clock
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reply(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
