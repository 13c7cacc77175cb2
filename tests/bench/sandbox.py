"""The code sandbox: attacks stopped, published solutions graded, wrong ones caught, programs per second. The last line is one JSON object.

`ADVCHAIN_DATA=/folder make bench-sandbox`. Every program takes the way of a model's answer: the benchmark's own file makes the item, bubblewrap runs the
code, the verdict comes from outside. Mutated: every published solution with its function replaced by one that returns None, and by one that returns the
right value inside a list; both are wrong on every problem. Only counts are printed, never a program.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from code_attacks import ATTACKS, PROGRAM_ATTACKS, sandboxed_processes  # noqa: E402

from advchain.benchmarks import humaneval, mbpp  # noqa: E402
from advchain.judges import canary  # noqa: E402
from advchain.judges.code import CodeOptions, run_tests  # noqa: E402
from advchain.judges.sandbox import Limits  # noqa: E402
from advchain.records import Item  # noqa: E402
from advchain.rows import read_rows  # noqa: E402

CORES = 2
MUTANTS = ("def {name}(*values, **named): return None", "_right = {name}\ndef {name}(*values, **named): return [_right(*values, **named)]")
REFERENCES: dict[str, dict[str, Any]] = {
    "function": {"mode": "function", "entry_point": "f", "tests": [[[1], 2]]},
    "asserts": {"mode": "asserts", "test_code": "assert f(1) == 2\nassert f(5) == 6\n"},
    "stdin": {"mode": "stdin", "tests": [["3\n", "4\n"]]},
}


def attack(code: str, mode: str) -> str:
    """Run one attack with baits planted; return its outcome."""
    with canary.bait() as planted:
        code = code.replace("{secret}", planted["folder"] + "/secret").replace("{port}", str(planted["port"]))
        before = sorted(Path(planted["folder"]).iterdir())
        outcome, _ = run_tests(code, REFERENCES[mode], CodeOptions(test_seconds=3, total_seconds=8), Limits(memory_mb=512, cpu_seconds=9))
        return outcome if sorted(Path(planted["folder"]).iterdir()) == before else "wrote outside"


def stopped(code: str, mode: str, outcomes: set[str]) -> bool:
    """True when an attack ended as it should. One that must not end well may also run into the wall clock, as happens on a busy machine."""
    outcome = attack(code, mode)
    return outcome in outcomes or (outcome == "timeout" and "pass" not in outcomes)


def attacks() -> list[bool]:
    """Every attack in every mode it is written for, and the canary's own: was it stopped?"""
    found = [stopped(code, mode, outcomes) for code, outcomes in ATTACKS.values() for mode in ("function", "asserts")]
    found += [stopped(code, "stdin", outcomes) for code, outcomes in PROGRAM_ATTACKS.items()]
    return [*found, not canary.breaches()]


def solutions(data: Path) -> Iterator[tuple[str, Item, str, str]]:
    """Yield (benchmark, item, function name, published solution)."""
    path = data / "eval/humaneval/HumanEval.jsonl.gz"
    for item, row in zip(humaneval.load(path), read_rows(path), strict=True):
        yield "humaneval", item, row.text("entry_point"), row.text("prompt") + row.text("canonical_solution")
    path = data / "eval/mbpp/mbpp.jsonl"
    rows = [row for row in read_rows(path) if row.integer("task_id") in mbpp.TEST_SPLIT]
    for item, row in zip(mbpp.load(path), rows, strict=True):
        code, called = row.text("code"), set(re.findall(r"\w+", row.texts("test_list")[0]))
        yield "mbpp", item, next(name for name in re.findall(r"def\s+(\w+)", code) if name in called), code


def grade(programs: Sequence[tuple[Item, str]]) -> list[str]:
    """Return the outcome of each program, CORES at a time."""
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(lambda pair: run_tests(pair[1], pair[0].reference, CodeOptions(), Limits(), where=pair[0].id)[0], programs))


def left_over(before: set[int]) -> int:
    """Processes of the sandbox that are still there after three seconds."""
    end = time.monotonic() + 3
    while sandboxed_processes() - before and time.monotonic() < end:
        time.sleep(0.05)
    return len(sandboxed_processes() - before)


def main() -> None:
    data, before = Path(os.environ["ADVCHAIN_DATA"]), sandboxed_processes()
    ended = attacks()
    print(f"attacks: {sum(ended)} of {len(ended)} stopped", flush=True)
    known = list(solutions(data))
    began = time.monotonic()
    outcomes = grade([(item, code) for _, item, _, code in known])
    seconds = time.monotonic() - began
    passed = {name: [o == "pass" for o, (benchmark, *_) in zip(outcomes, known, strict=True) if benchmark == name] for name in ("humaneval", "mbpp")}
    print(f"canonical: {dict(Counter(outcomes))} in {seconds:.0f} s", flush=True)
    wrong = grade([(item, f"{code}\n\n{mutant.format(name=name)}") for _, item, name, code in known for mutant in MUTANTS])
    print(f"mutated: {dict(Counter(wrong))}", flush=True)
    rates = {f"{name}_canonical_pass_rate": round(sum(right) / len(right), 4) for name, right in passed.items()}
    figures = {
        "attacks": len(ended),
        "attacks_stopped_rate": round(sum(ended) / len(ended), 4),
        **rates,
        "canonical": len(known),
        "mutated": len(wrong),
        "mutated_fail_rate": round(sum(outcome != "pass" for outcome in wrong) / len(wrong), 4),
        "leftover_processes": left_over(before),
        "programs_per_second": round(len(known) / seconds, 1),
        "cores": CORES,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
