"""Serve candidate code: load it, call its functions, send results as data. Arguments: limits, request fd, reply fd.

The candidate shares this process and may forge any reply. That wins nothing: expected values are not here, only the claimed ones leave.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (no pathlib: it costs start-up time)

import limits  # type: ignore[import-not-found]
import wire  # type: ignore[import-not-found]

module = types.ModuleType("candidate")
handles: list[Any] = []


def keep(value: object) -> int:
    """Keep a value that cannot cross and return its handle."""
    handles.append(value)
    return len(handles) - 1


def load(code: list[str]) -> list[str]:
    """Execute the pieces of code in one module; return the names of its callables."""
    sys.modules["candidate"] = module  # dataclasses and pickle look their module up
    for piece in code:
        exec(compile(piece, "candidate", "exec"), module.__dict__)
    return [name for name, value in module.__dict__.items() if callable(value) and not name.startswith("__")]


def find(name: str) -> Any:
    """Return a top-level name, a method "Class.name" of a fresh instance, or the method of a class Solution (the LeetCode form)."""
    names = module.__dict__
    if name not in names and "." not in name and hasattr(names.get("Solution"), name):
        name = f"Solution.{name}"
    owner, _, method = name.rpartition(".")
    return getattr(names[owner](), method) if owner else names[name]


def serve(request: dict[str, Any]) -> Any:
    """Carry out one request and return its value."""
    op = request["op"]
    if op == "load":
        return load(request["code"])
    target = find(request["name"]) if "name" in request else handles[request["handle"]]
    args = [wire.decode(value, handles.__getitem__) for value in request.get("args", [])]
    if op == "call":
        return target(*args, **{key: wire.decode(value, handles.__getitem__) for key, value in request.get("kwargs", {}).items()})
    if op == "get":
        return getattr(target, request["attribute"])
    if op == "set":
        setattr(target, request["attribute"], args[0])
        return None
    return list(target)  # op == "items"


def reply_to(line: bytes) -> bytes:
    """Return the reply line: {"value": ...} or {"error": kind, "type": exception's name}."""
    try:
        reply: bytes = wire.dump_line({"value": wire.encode(serve(json.loads(line)), keep)})
    except MemoryError:
        reply = wire.dump_line({"error": "memory", "type": "MemoryError"})
    except BaseException as error:  # SystemExit too: leaving early is a failed test, not the end of the tests
        reply = wire.dump_line({"error": "fail", "type": type(error).__name__})
    return reply


def main() -> None:
    """Answer requests until the request pipe closes."""
    limits.apply()
    with open(int(sys.argv[2]), "rb") as requests, open(int(sys.argv[3]), "wb", buffering=0) as replies:
        replies.write(wire.dump_line({"value": "ready"}))
        for line in requests:
            data = reply_to(line)
            while data:
                data = data[replies.write(data) :]


main()
