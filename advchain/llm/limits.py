"""What an endpoint says about its limits: Retry-After in its forms, and the x-ratelimit headers."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Limits:
    """Requests and tokens per minute; None = not known."""

    requests: float | None = None
    tokens: float | None = None

    def lowest(self, other: Limits) -> Limits:
        """Return the stricter of two."""
        return Limits(_least(self.requests, other.requests), _least(self.tokens, other.tokens))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds a 429 or 503 asks to wait: `retry-after-ms`, or `retry-after` as number or HTTP date.

    A date is compared with the server's own `date` header, so that our clock does not matter. None when absent or nonsense; never negative.

    >>> retry_after({"retry-after": "1.5"}), retry_after({"retry-after": "-3"}), retry_after({"retry-after-ms": "250"}), retry_after({"retry-after": "soon"})
    (1.5, 0.0, 0.25, None)
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        return max(seconds / 1000, 0.0)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value and (date := _date(value)) is not None:
        server_now = _date(headers.get("date") or "")
        seconds = date - (server_now if server_now is not None else time.time() if now is None else now)
    return None if seconds is None else max(seconds, 0.0)


def told_limits(headers: Mapping[str, str]) -> Limits:
    """Return the limits per minute in `x-ratelimit-limit-*`.

    Some providers use the same names for a quota of a day. A bucket of `limit` that lacks `limit - remaining` and is full again after `reset` refills in
    limit * reset / (limit - remaining) seconds: only about a minute (30-90 s) counts.
    """
    return Limits(_per_minute(headers, "requests"), _per_minute(headers, "tokens"))


def duration(value: str | None) -> float | None:
    """Return seconds of "120ms", "1m30.5s" or a plain number of seconds.

    >>> duration("120ms"), duration("1m30.5s"), duration("7"), duration("x")
    (0.12, 90.5, 7.0, None)
    """
    if not value:
        return None
    parts = DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    return _number(value)


def _per_minute(headers: Mapping[str, str], unit: str) -> float | None:
    limit, remaining = _number(headers.get(f"x-ratelimit-limit-{unit}")), _number(headers.get(f"x-ratelimit-remaining-{unit}"))
    reset = duration(headers.get(f"x-ratelimit-reset-{unit}"))
    if limit is None or remaining is None or reset is None or not 0 <= remaining < limit:
        return None
    return limit if 30 <= limit * reset / (limit - remaining) <= 90 else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _least(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else min(first, second)
