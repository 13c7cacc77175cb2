"""A progress line a person can watch: one log line at most every few seconds, so that logs stay quiet."""

from __future__ import annotations

import logging
import time


class Progress:
    """Count work and log `label 12/80 rows, 340 tokens/s, ETA 1:05` at most every `every` seconds and at the end."""

    def __init__(self, total: int, label: str, unit: str = "rows", every: float = 10.0, log: logging.Logger | None = None) -> None:
        self.total, self.label, self.unit, self.every = total, label, unit, every
        self.log = log or logging.getLogger(__name__)
        self.done = 0
        self.start = self.last = time.monotonic()
        self.rates: dict[str, float] = {}

    def update(self, num: int = 1, extra: str = "", **amounts: float) -> None:
        """Add `num` units done; `amounts` are summed and shown as per-second rates (tokens=...), `extra` as it is."""
        self.done += num
        for name, amount in amounts.items():
            self.rates[name] = self.rates.get(name, 0.0) + amount
        if time.monotonic() - self.last >= self.every and self.done < self.total:
            self._write(extra)

    def _write(self, extra: str = "") -> None:
        self.last = time.monotonic()
        elapsed = max(self.last - self.start, 1e-9)
        left = elapsed / self.done * (self.total - self.done) if self.done else 0.0
        self._line(elapsed, f"ETA {clock(left)}", extra)

    def _line(self, elapsed: float, clock: str, extra: str) -> None:
        rates = "".join(f", {amount / elapsed:,.0f} {name}/s" for name, amount in self.rates.items())
        self.log.info("%s %d/%d %s%s, %s%s", self.label, self.done, self.total, self.unit, rates, clock, f", {extra}" if extra else "")

    def close(self, extra: str = "") -> None:
        """Write the last line, with the time it took."""
        elapsed = max(time.monotonic() - self.start, 1e-9)
        self._line(elapsed, f"took {clock(elapsed)}", extra)


def clock(seconds: float) -> str:
    """Return minutes and seconds.

    >>> clock(59.7), clock(3725)
    ('0:59', '62:05')
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
