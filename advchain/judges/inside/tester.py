"""Run a benchmark's test code against candidate functions that live in ANOTHER sandbox. Arguments: limits, job fd, request fd, reply fd, verdict fd.

The job is {"setup_code", "test_code", "entry_point", "names"}; the verdict one line {"outcome": pass|fail|memory|crash|output, "type"}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import limits  # type: ignore[import-not-found]
import wire  # type: ignore[import-not-found]

MAX_LINE = 1 << 20
requests = open(int(sys.argv[3]), "wb", buffering=0)  # noqa: SIM115  held for the whole run
replies = open(int(sys.argv[4]), "rb")  # noqa: SIM115


class CandidateError(Exception):
    """The candidate raised, crashed, or sent too much."""

    def __init__(self, outcome: str, kind: str) -> None:
        super().__init__(outcome)
        self.outcome, self.kind = outcome, kind


def ask(**request: Any) -> Any:
    """Send one request to the candidate and return the value of its reply."""
    data = wire.dump_line(request)
    try:
        while data:
            data = data[requests.write(data) :]
    except BrokenPipeError:
        raise CandidateError("crash", "end of file") from None
    line = replies.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise CandidateError("output", "result over 1 MB")
    if not line.endswith(b"\n"):
        raise CandidateError("crash", "end of file")
    reply = json.loads(line)
    if "error" in reply:
        raise CandidateError("memory" if reply["error"] == "memory" else "fail", str(reply.get("type")))
    return wire.decode(reply["value"], lambda handle: Remote(handle=int(handle)))


class Remote:
    """A value on the candidate's side. It compares by identity here, so that its own __eq__ never decides a test."""

    def __init__(self, **where: Any) -> None:
        object.__setattr__(self, "_where", where)

    _where: dict[str, Any]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call it over there with data."""
        sent = {key: wire.encode(value, handle_of) for key, value in kwargs.items()}
        return ask(op="call", args=[wire.encode(value, handle_of) for value in args], kwargs=sent, **self._where)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return ask(op="get", attribute=name, **self._where)

    def __setattr__(self, name: str, value: object) -> None:
        ask(op="set", attribute=name, args=[wire.encode(value, handle_of)], **self._where)

    def __iter__(self) -> Iterator[object]:
        return iter(ask(op="items", **self._where))

    def __bool__(self) -> bool:
        raise CandidateError("fail", "an object where data is expected")


def handle_of(value: object) -> Any:
    """Return the handle of a Remote that goes back to the candidate."""
    where = object.__getattribute__(value, "_where")
    if "handle" not in where:
        raise TypeError("a function cannot be passed back by name")
    return where["handle"]


def run(job: dict[str, Any]) -> None:
    """Execute the test code with the candidate's names in reach."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(compile(job["setup_code"], "setup", "exec"), namespace)
    for name in job["names"]:
        if name not in namespace or name == job["entry_point"]:  # a helper of the benchmark stays the benchmark's own
            namespace[name] = Remote(name=name)
    exec(compile(job["test_code"], "tests", "exec"), namespace)


def outcome_of(job: dict[str, Any]) -> dict[str, str]:
    """Return the verdict of the run."""
    try:
        run(job)
    except CandidateError as error:
        return {"outcome": error.outcome, "type": error.kind}
    except Exception as error:
        return {"outcome": "fail", "type": type(error).__name__}
    return {"outcome": "pass", "type": ""}


def main() -> None:
    """Read the job, run it, write the verdict."""
    limits.apply()
    with open(int(sys.argv[2]), encoding="utf-8") as file:
        job = json.load(file)
    os.write(int(sys.argv[5]), wire.dump_line(outcome_of(job)))


main()
