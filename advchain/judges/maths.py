r"""Maths: the last \boxed{} of the answer equals the reference (math-verify 0.9, in a process that can be killed).

What counts as the final answer, in order: the last `\boxed{...}` or `\fbox{...}` of the answer part (never of the chain; a box that is
not closed is no box); else what follows the last "answer is" / "answer:" up to the end of the sentence. Anything else is no_answer.
Equal text after dropping white space, `\left`, `\right`, `\!` and `$`, or equal integers ("073" = "73"), is right without math-verify; two
different integers are wrong without it. Per cent: "50%" and "50\%" equal 50 and 0.5, as in math-verify. Reference: {"answer": text}.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from advchain.errors import DataError, EngineError
from advchain.judges.base import AnswerJudge, Options, make_verdict, read_options
from advchain.progress import Progress
from advchain.records import Label, Response, Verdict
from advchain.specs import JudgeSpec

log = logging.getLogger(__name__)

VERSION = 1
MEASURES = "correctness"

BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)  # \{ and \} are symbols, not braces
STATED = re.compile(r"\banswer\s*(?:is|:|=)[\s:]*(.+?)(?:\.\s|\.?$)", re.IGNORECASE | re.MULTILINE)
MAX_EXPRESSION = 2000  # characters; a longer "final answer" is not one, and would only keep the parser busy
START_SECONDS = 120.0


class MathsOptions(Options):
    """`timeout_seconds`: wall clock of one comparison."""

    timeout_seconds: float = Field(default=10.0, gt=0)


OPTIONS = MathsOptions


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last closed `\boxed{...}`, braces balanced; None without one.

    >>> last_boxed(r"so \boxed{1} or rather \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    open_braces: list[tuple[bool, int]] = []  # (opened by a box, where its content starts)
    found = (-1, -1)
    for match in BRACES.finditer(text):
        if match[0].endswith("{") and match[0] != r"\{":
            open_braces.append((len(match[0]) > 1, match.end()))
        elif match[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            if is_box and start > found[0]:  # the one that begins last, so the inner of two nested ones
                found = (start, match.start())
    return text[slice(*found)].strip() if found[0] >= 0 else None


def final_answer(answer: str) -> str | None:
    """Return the expression that the answer part commits to (module docstring), None if there is none."""
    found = last_boxed(answer)
    if found is None:
        stated = STATED.findall(answer)
        found = stated[-1].strip("*$ \t") if stated else None
    return found if found and len(found) <= MAX_EXPRESSION else None


def plain(expression: str) -> str:
    """Drop what cannot change a value: white space, dollar signs, sizing commands, a final full stop."""
    text = re.sub(r"\\(?:left|right|!|,|;|:)(?![a-z])|[\s$]", "", expression)
    return text.replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")


def compare_plainly(gold: str, given: str) -> bool | None:
    """Return whether the two are plainly equal or plainly different integers; None when mathematics is needed."""
    a, b = plain(gold), plain(given)
    if a == b:
        return True
    integer = re.compile(r"[+-]?\d{1,18}")
    return int(a) == int(b) if integer.fullmatch(a) and integer.fullmatch(b) else None


class Worker:
    """A math-verify process, reused for many answers and replaced after it had to be killed or died."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.process: subprocess.Popen[bytes] | None = None

    def compare(self, gold: str, given: str) -> tuple[Label, str]:
        """Return (right | wrong | timeout, reason)."""
        process = self.process or self._start()
        reply = self._ask(process, json.dumps({"gold": gold, "answer": given}), self.timeout_seconds)
        if reply is None:
            died = process.poll() is not None
            self.close()
            return "timeout", "the comparison ran out of memory" if died else f"no result in {self.timeout_seconds:g} s"
        if "error" in reply:
            return "wrong", f"math-verify: {reply['error']}"
        return ("right", "") if reply["verdict"] == "right" else ("wrong", "unparsed" if reply["verdict"] == "unparsed" else "")

    def _start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "advchain.judges.maths_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_worker_environment()
        )
        if self._read(self.process, START_SECONDS) is None:
            self.close()
            raise EngineError("the maths judge could not start math-verify. Install it (pip install math-verify) in the environment that runs the judges.")
        return self.process

    def _ask(self, process: subprocess.Popen[bytes], request: str, seconds: float) -> dict[str, str] | None:
        assert process.stdin is not None
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._read(process, seconds)

    def _read(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, str] | None:
        assert process.stdout is not None
        deadline, data = time.monotonic() + seconds, b""
        while not data.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                process.wait()
                return None
            data += piece
        reply: dict[str, str] = json.loads(data)
        return reply

    def close(self) -> None:
        """Kill the process; the next comparison starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _worker_environment() -> dict[str, str]:
    """The worker gets no keys: it parses model-written text."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}


class Maths(AnswerJudge):
    """right | wrong | no_answer | timeout."""

    def __init__(self, name: str, options: MathsOptions) -> None:
        super().__init__(name)
        self.worker = Worker(options.timeout_seconds)

    def judge_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Grade each answer."""
        progress = Progress(len(responses), f"judge {self.name}", "answers", log=log)
        verdicts = []
        for response in responses:
            verdicts.append(self._verdict(response))
            progress.update()
        return verdicts

    def _verdict(self, response: Response) -> Verdict:
        gold = response.reference.get("answer")
        if not isinstance(gold, str) or not gold.strip():
            raise DataError(f"item {response.item_id}: a maths reference is {{'answer': text}}, got {sorted(response.reference)}. Mend the benchmark.")
        given = final_answer(response.answer)
        if given is None:
            return make_verdict(self.name, response, "no_answer", reason="no final answer")
        plainly = compare_plainly(gold, given)
        label, reason = self.worker.compare(gold, given) if plainly is None else ("right" if plainly else "wrong", "")
        detail = {"answer": given[:200]} | ({"reason": reason} if reason else {})
        return make_verdict(self.name, response, label, float(label == "right"), **detail)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()


def build(spec: JudgeSpec, work: Path) -> Maths:
    """Return the judge; `work` is not used."""
    return Maths(spec.name, read_options(OPTIONS, spec))
