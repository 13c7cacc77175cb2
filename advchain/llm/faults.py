"""What can go wrong between us and an endpoint, and what to do about it: wait and ask again, give up the row, or stop the stage."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advchain.errors import AdvChainError

MAX_BODY_BYTES = 8 << 20  # a chat answer is a few KiB; a server that sends more is broken
MAX_WAIT_SECONDS = 60.0  # cap on Retry-After: a limit that asks for longer ends in an error that names it
QUOTA_CODES = ("insufficient_quota", "insufficient_balance", "billing_hard_limit_reached", "quota_exceeded")
ROW_CODES = {
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "data_inspection_failed": "content_filter",
}


class AnswerError(AdvChainError, RuntimeError):
    """The endpoint works but kept answering this one request with something that is no chat completion."""


class MalformedBody(Exception):
    """A 200 whose body is no chat completion; `str()` is a short code without any of the body's text."""


@dataclass(frozen=True)
class Fault:
    """One failed attempt. `kind` is counted; `retry` False stops the stage; `row` is a finish reason that concerns this request only."""

    kind: str
    retry: bool
    detail: str
    wait: float | None = None
    row: str = ""


@dataclass(frozen=True)
class Body:
    """The fields of a chat completion that we use."""

    text: str
    finish_reason: str
    model: str
    input_tokens: int
    output_tokens: int


def status_fault(status: int, code: str, message: str, headers: Mapping[str, str]) -> Fault:
    """Classify an HTTP error status (RELIABILITY A1, A3, A9)."""
    detail = f"status {status}" + (f", code {code}" if code else "") + (f": {message}" if message else "")
    if status == 400 and (row := ROW_CODES.get(code)):
        return Fault(row, False, detail, row=row)
    if status == 402 or code in QUOTA_CODES:
        return Fault("quota", False, detail)
    if status in (408, 409, 425, 429) or status >= 500:
        kind = "rate_limit" if status == 429 else "server"
        return Fault(kind, True, detail, wait=retry_after(headers.get("retry-after")))
    return Fault(f"status_{status}", False, detail)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for (number or HTTP date), None when absent or nonsense; never negative.

    >>> retry_after("1.5"), retry_after("-3"), retry_after("soon")
    (1.5, 0.0, None)
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = date.timestamp() - (time.time() if now is None else now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def safe_message(message: str, secret: str | None, contents: list[str], limit: int = 200) -> str:
    """Return a server's message fit for a log: one line, key removed, and dropped when it quotes the prompt (which may be harmful text)."""
    line = " ".join(message.split())
    if secret:
        line = line.replace(secret, "***")
    pieces = (line[i : i + 24] for i in range(0, max(len(line) - 23, 0), 8))
    flat = [" ".join(content.split()) for content in contents]
    if any(piece in content for piece in pieces for content in flat):
        return "(message not shown: it quotes the prompt)"
    return line[:limit]


def parse_body(raw: bytes) -> Body:
    """Read a chat completion strictly.

    Raises:
        MalformedBody: not JSON, NaN or duplicate keys, no choices, wrong types (RELIABILITY A6, A7).
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedBody("not_json") from error
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedBody("no_choices")
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, dict) else 0
    if content is not None and not isinstance(content, str):
        raise MalformedBody("wrong_type")
    usage = value.get("usage") if isinstance(value.get("usage"), dict) else {}
    return Body(
        text=content or "",
        finish_reason=str(choices[0].get("finish_reason") or "stop"),
        model=str(value.get("model") or ""),
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate keys")
    return value
