"""How fast may requests be sent? Pace them evenly, find an unknown limit, keep to a known one.

Slow start doubles the rate until the first 429; from then on every 429 cuts it a little and every second without one lets it grow, slowly at
first and faster the longer it stays quiet (AIMD with CUBIC's convex growth). A limit told in the settings or in the provider's headers is a ceiling that is
reached at once. Time is monotonic: a clock that jumps changes nothing (RELIABILITY A15).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from advchain.llm.limits import Limits

START_RATE = 10.0  # requests per second before anything is known
DOUBLING_SECONDS = 0.5  # slow start
GROWTH, MAX_GROWTH, GROWTH_DOUBLING_SECONDS = 0.005, 0.25, 2.0  # share per second after a 429; doubles every two quiet seconds
FIRST_CUT = 0.3  # at the first 429: slow start has gone past the limit by up to twice
CUT, MAX_CUT = 0.02, 0.3  # share cut per 429; larger below 25 requests/s, where a 429 is rarer and says more
KEPT_SHARE = 0.9  # a burst of late 429s never cuts below this share of what was taken lately
MEMORY_SECONDS = 1.5  # of the rate that was taken
BURST_SECONDS = 0.1  # what a late event loop may catch up with
MARGIN = 0.995  # of a known limit
SHORT_WAIT = 2.0  # a Retry-After up to this concerns one request; a longer one tells of a used-up window, and everybody waits


class Pacer:
    """The rate of one endpoint. `wait`, then `sent`; `rejected` and `told` when answers come.

    Args:
        requests_per_minute, tokens_per_minute: limits known beforehand.
        paced: False for a model in this process, which has no limit to find.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.limits = self.set_limits = Limits(requests_per_minute, tokens_per_minute)  # headers can only lower what the settings say
        self.mean_tokens = 0.0
        self.ceiling = math.inf
        self.rate, self.slow_start = START_RATE if paced else 1e9, True
        self.allowance, self.quiet = 1.0, 0.0
        self.taken, self.last, self.hold_until, self.cut_at = 0.0, clock(), 0.0, 0.0
        self._move_ceiling()

    def wait(self) -> float:
        """Return the seconds until one more request may be sent; 0 = now."""
        now = self.clock()
        elapsed = now - self.last
        self.last = now
        self.taken *= math.exp(-elapsed / MEMORY_SECONDS)
        self.allowance = min(self.allowance + elapsed * self.rate, max(2.0, self.rate * BURST_SECONDS))
        if now < self.hold_until:
            return self.hold_until - now
        return 0.0 if self.allowance >= 1 - 1e-9 else (1 - self.allowance) / self.rate

    def sent(self) -> None:
        """Count one request; grow when the rate is what holds requests back (an idle client learns nothing)."""
        self.allowance -= 1
        self.taken += 1
        if self.allowance < 1:
            self._grow(min(1 / self.rate, 0.25))

    def rejected(self, sent_at: float, seconds: float | None) -> None:
        """A 429 came for a request of `sent_at`; it asks for `seconds` of waiting, if it says."""
        now = self.clock()
        self.taken = max(self.taken - 1, 0.0)
        if seconds is not None and seconds > SHORT_WAIT:
            self.hold_until = max(self.hold_until, now + seconds)
        if sent_at < self.cut_at:
            return  # sent at the rate of slow start, which is gone already
        if self.slow_start:
            self.cut_at = now
        cut = FIRST_CUT if self.slow_start else min(max(CUT, 0.5 / self.rate), MAX_CUT)
        kept = KEPT_SHARE * self.taken / MEMORY_SECONDS
        self.rate = max(self.rate * (1 - cut), min(self.rate, kept))
        self.slow_start = False
        self.rate, self.quiet = max(self.rate, 0.01), 0.0

    def told(self, limits: Limits) -> None:
        """The headers of an answer name limits per minute; a limit they do not name stays what it was."""
        lowest = self.set_limits.lowest(Limits(limits.requests or self.limits.requests, limits.tokens or self.limits.tokens))
        if lowest != self.limits:
            self.limits = lowest
            self._move_ceiling()

    def answered(self, num_tokens: int) -> None:
        """An answer of `num_tokens`, in and out, was paid for: the token limit becomes one of requests."""
        self.mean_tokens += (num_tokens - self.mean_tokens) * (0.05 if self.mean_tokens else 1.0)
        if self.limits.tokens is not None:
            self.ceiling = self._ceiling()
            self.rate = min(self.rate, self.ceiling)

    def restart(self) -> None:
        """The endpoint is back after an outage: start again, lower."""
        self.rate, self.slow_start, self.quiet = min(max(START_RATE, self.rate / 4), self.rate), True, 0.0

    def _grow(self, seconds: float) -> None:
        if self.slow_start:
            self.rate *= 2 ** (seconds / DOUBLING_SECONDS)
        else:
            self.quiet += seconds
            self.rate *= 1 + seconds * min(GROWTH * 2 ** min(self.quiet / GROWTH_DOUBLING_SECONDS, 20), MAX_GROWTH)
        if self.rate >= self.ceiling:
            self.rate, self.slow_start = self.ceiling, False

    def _ceiling(self) -> float:
        limits = [math.inf]
        if self.limits.requests is not None:
            limits.append(self.limits.requests / 60)
        if self.limits.tokens is not None and self.mean_tokens:
            limits.append(self.limits.tokens / 60 / self.mean_tokens)
        return MARGIN * min(limits)

    def _move_ceiling(self) -> None:
        """Take a new limit over at once, in both directions."""
        before, self.ceiling = self.ceiling, self._ceiling()
        if self.ceiling < math.inf and (self.slow_start or before == math.inf or self.ceiling > before):
            self.rate, self.slow_start = self.ceiling, False
        self.rate = min(self.rate, self.ceiling)
