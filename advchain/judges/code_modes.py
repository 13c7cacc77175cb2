"""The three ways to test a candidate program: call a function, feed stdin, run assertions. Each returns how it ended, never raises for the candidate."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from advchain.errors import SandboxError
from advchain.judges.inside import wire
from advchain.judges.sandbox import START_SECONDS, Channel, Limits, Sandboxed, Stopped, memory_file

Outcome = Literal["pass", "fail", "timeout", "memory", "output", "crash"]
Result = tuple[Outcome, dict[str, Any]]

# What contest graders import for the candidate (LiveCodeBench prepends a longer list of the same kind).
PRELUDE = """
import sys, re, math, string, random, operator, copy, json, time, datetime, collections, itertools, functools, heapq, bisect
from typing import *
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
"""


class Candidate:
    """A candidate module alive in its sandbox, asked over a channel."""

    def __init__(self, limits: Limits) -> None:
        self.channel = Channel()
        theirs = self.channel.theirs()
        self.run = Sandboxed("candidate.py", [str(handle) for handle in theirs], limits, fds=theirs)
        self.channel.close_theirs()
        try:
            self.channel.receive(time.monotonic() + START_SECONDS)
        except Stopped as error:
            complaint = self.run.complaint()
            self.close()
            raise SandboxError(f"the sandbox did not start ({error}: {complaint or 'no message'}). Nothing was judged; run again.") from error

    def ask(self, deadline: float, **request: Any) -> Any:
        """Send one request, return the decoded value; a raised exception comes as Failed, a dead or silent candidate as Stopped."""
        self.channel.send(wire.dump_line(request), deadline)
        line = self.channel.receive(deadline)
        try:
            reply = json.loads(line)
            if "error" not in reply:
                return wire.decode(reply["value"], lambda handle: Opaque())
            kind, name = str(reply["error"]), str(reply.get("type"))[:80]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise Failed("fail", f"unreadable reply ({type(error).__name__})") from error
        raise Failed("memory" if kind == "memory" else "fail", name)

    def load(self, code: list[str], deadline: float) -> list[str]:
        """Execute code; return the names of its callables."""
        names = self.ask(deadline, op="load", code=code)
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def close(self) -> None:
        """Kill it."""
        self.run.close()
        self.channel.close()

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Failed(Exception):
    """The candidate raised an exception, or sent what cannot be read."""

    def __init__(self, outcome: Outcome, kind: str) -> None:
        super().__init__(kind)
        self.outcome, self.kind = outcome, kind


class Opaque:
    """Something that is not data; equal to nothing."""


def run_function(code: str, reference: dict[str, Any], test_seconds: float, total_seconds: float, limits: Limits) -> Result:
    """Call `entry_point` with each test's arguments and compare here."""
    tests, name = reference["tests"], reference["entry_point"]
    end = time.monotonic() + total_seconds
    number = -1  # -1: while loading
    try:
        with Candidate(limits) as candidate:
            candidate.load([PRELUDE, reference.get("setup_code", ""), code], min(end, time.monotonic() + test_seconds))
            for number, (args, expected) in enumerate(tests):
                sent = [wire.encode(value, _no_handle) for value in args]
                value = candidate.ask(min(end, time.monotonic() + test_seconds), op="call", name=name, args=sent)
                if not same_value(value, expected):
                    return "fail", {"test": number, "num_tests": len(tests), "type": "wrong value"}
    except Stopped as stopped:
        return _outcome(stopped), {"test": number, "num_tests": len(tests)}
    except Failed as failed:
        return failed.outcome, {"test": number, "num_tests": len(tests), "type": failed.kind}
    return "pass", {"num_tests": len(tests)}


def run_stdin(code: str, reference: dict[str, Any], test_seconds: float, total_seconds: float, limits: Limits) -> Result:
    """Run the program once per test, in a fresh sandbox, and compare its stdout here."""
    tests = reference["tests"]
    program = "\n".join([PRELUDE, reference.get("setup_code", ""), code])
    end = time.monotonic() + total_seconds
    for number, (given, expected) in enumerate(tests):
        if time.monotonic() >= end:
            return "timeout", {"test": number, "num_tests": len(tests)}
        outcome = _run_program(program, given, expected, min(test_seconds, end - time.monotonic()), limits)
        if outcome != "pass":
            return outcome, {"test": number, "num_tests": len(tests)}
    return "pass", {"num_tests": len(tests)}


def _run_program(program: str, given: str, expected: str, seconds: float, limits: Limits) -> Outcome:
    source, channel = memory_file(program.encode("utf-8", "replace")), Channel()
    try:
        with Sandboxed(
            "program.py", [str(source), str(channel.their_replies)], limits, fds=(source, channel.their_replies), stdin=given.encode("utf-8", "replace")
        ) as run:
            channel.close_theirs()
            try:
                channel.receive(time.monotonic() + START_SECONDS)
            except Stopped as error:
                raise SandboxError(f"the sandbox did not start ({error}: {run.complaint() or 'no message'}). Nothing was judged; run again.") from error
            return _read_program(run, expected, seconds, limits)
    except Stopped as stopped:
        return _outcome(stopped)
    finally:
        os.close(source)
        channel.close()


def _read_program(run: Sandboxed, expected: str, seconds: float, limits: Limits) -> Outcome:
    start = time.monotonic()
    try:
        status = run.wait(seconds)
    except Stopped:
        run.output()  # endless printing ends as "output", not as "timeout"
        raise
    text = run.output().decode("utf-8", "replace")
    if status == 0:
        return "pass" if same_text(text, expected) else "fail"
    if status == 77:
        return "memory"
    out_of_cpu = status in (128 + 24, 128 + 9) and time.monotonic() - start >= limits.cpu_seconds - 1
    return "timeout" if out_of_cpu else "crash" if status > 128 else "fail"


def run_asserts(code: str, reference: dict[str, Any], test_seconds: float, total_seconds: float, limits: Limits) -> Result:
    """Load the candidate in one sandbox and run the benchmark's assertions against it from another; `total_seconds` is not used (one test)."""
    deadline = time.monotonic() + test_seconds
    try:
        with Candidate(limits) as candidate:
            names = candidate.load([reference.get("setup_code", ""), code], deadline)
            job = {
                "setup_code": reference.get("setup_code", ""),
                "test_code": reference["test_code"],
                "entry_point": reference.get("entry_point"),
                "names": names,
            }
            return _run_tester(candidate, job, deadline, limits)
    except Stopped as stopped:
        return _outcome(stopped), {}
    except Failed as failed:
        return failed.outcome, {"type": failed.kind}


def _run_tester(candidate: Candidate, job: dict[str, Any], deadline: float, limits: Limits) -> Result:
    source, verdicts = memory_file(json.dumps(job).encode()), Channel()
    ours = candidate.channel
    os.set_blocking(ours.requests, True)  # from here on the tester writes to this pipe; its clock is ours
    handles = (source, ours.requests, ours.replies, verdicts.their_replies)
    try:
        with Sandboxed("tester.py", [str(handle) for handle in handles], limits, fds=handles) as run:
            verdicts.close_theirs()
            try:
                reply = json.loads(verdicts.receive(deadline))
            except Stopped as stopped:
                if stopped.outcome == "crash":  # the tester is ours: it must not die
                    raise SandboxError(
                        f"the tests' sandbox died ({run.complaint() or 'no message'}). Nothing was judged; check the benchmark's test code."
                    ) from stopped
                raise
    finally:
        os.close(source)
        verdicts.close()
    return reply["outcome"], {"type": reply["type"]} if reply["type"] else {}


def _outcome(stopped: Stopped) -> Outcome:
    outcome: Outcome = stopped.outcome  # type: ignore[assignment]  # Stopped carries these names only
    return outcome


def _no_handle(value: Any) -> Any:
    raise TypeError(f"test argument of type {type(value).__name__} is not data")


def same_value(value: Any, expected: Any) -> bool:
    """Compare a returned value with an expected one from JSON: tuples are lists, keys are text, floats agree to 1e-9."""
    if isinstance(expected, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(value) == len(expected) and all(map(same_value, value, expected))
    if isinstance(expected, dict):
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        found = {str(key): part for key, part in value.items()}
        return all(str(key) in found and same_value(found[str(key)], part) for key, part in expected.items())
    if isinstance(expected, float) and isinstance(value, (int, float)):
        try:
            return value == expected or math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)
        except OverflowError:  # an integer beyond any float
            return False
    return bool(value == expected)


def same_text(text: str, expected: str) -> bool:
    """Compare outputs line by line and word by word; numbers by value, as the contest graders do."""
    ours, theirs = ([line.split() for line in part.strip().splitlines()] for part in (text, expected))
    return len(ours) == len(theirs) and all(len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(ours, theirs, strict=True))


def _same_word(word: str, expected: str) -> bool:
    if word == expected:
        return True
    try:
        return Decimal(word) == Decimal(expected)
    except InvalidOperation:
        return False


MODES: dict[str, Callable[[str, dict[str, Any], float, float, Limits], Result]] = {"function": run_function, "stdin": run_stdin, "asserts": run_asserts}
FIELDS = {"function": ("entry_point", "tests"), "stdin": ("tests",), "asserts": ("test_code",)}
