"""Values on the wire between candidate code and the tests: tagged JSON that decodes to plain builtins, whatever was sent.

An object with a forged `__eq__` cannot cross: decoding never yields anything but builtins and opaque handles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

MAX_PLAIN = 1 << 53  # larger integers travel as hex: JSON readers and int() limits do not touch them


def encode(value: Any, handle: Callable[[Any], Any]) -> Any:
    """Return a JSON-able form; `handle` gives one for values that are not plain data."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value) if -MAX_PLAIN < value < MAX_PLAIN else {"i": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"f": repr(float(value))}
    for tag, kind in (("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return {tag: [encode(part, handle) for part in value]}
    if isinstance(value, list):
        return [encode(part, handle) for part in value]
    if isinstance(value, dict):
        return {"d": [[encode(key, handle), encode(part, handle)] for key, part in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [encode(value.real, handle), encode(value.imag, handle)]}
    return {"r": handle(value)}


def decode(data: Any, resolve: Callable[[Any], Any]) -> Any:
    """Return the builtins that `data` stands for; `resolve` turns a handle into an object.

    Raises:
        ValueError, TypeError: not the form that `encode` gives.
    """
    if isinstance(data, list):
        return [decode(part, resolve) for part in data]
    if not isinstance(data, dict):
        return data
    ((tag, body),) = data.items()
    plain: dict[str, Callable[[Any], Any]] = {
        "i": lambda text: int(text, 16),
        "f": lambda text: {"inf": math.inf, "-inf": -math.inf}.get(text, math.nan),
        "t": lambda parts: tuple(decode(part, resolve) for part in parts),
        "s": lambda parts: {decode(part, resolve) for part in parts},
        "z": lambda parts: frozenset(decode(part, resolve) for part in parts),
        "d": lambda pairs: {decode(key, resolve): decode(part, resolve) for key, part in pairs},
        "b": bytes.fromhex,
        "c": lambda parts: complex(*(decode(part, resolve) for part in parts)),
        "r": resolve,
    }
    if tag not in plain:
        raise ValueError(f"unknown tag {tag!r}")
    return plain[tag](body)


def dump_line(message: dict[str, Any]) -> bytes:
    """Return one message as a line."""
    return json.dumps(message, allow_nan=False).encode("ascii") + b"\n"
