"""Pacing, turns and limits with a clock that the test moves; the same against real sockets is in tests/faults and tests/bench."""

from __future__ import annotations

import asyncio
import random

import pytest

from advchain.llm.dispatch import OPEN_FAILURES, Dispatcher, Turn
from advchain.llm.limits import Limits, duration, retry_after, told_limits
from advchain.llm.pacing import SHORT_WAIT, Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Endpoint:
    """A token bucket in simulated time."""

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self.clock, self.rate, self.size = clock, rate, burst
        self.level, self.last = burst, clock.now

    def take(self) -> bool:
        self.level = min(self.size, self.level + (self.clock.now - self.last) * self.rate)
        self.last = self.clock.now
        if self.level < 1:
            return False
        self.level -= 1
        return True


def simulate(pacer: Pacer, clock: Clock, endpoint: Endpoint, seconds: float, late: float = 0.0) -> tuple[int, int]:
    """Keep the queue full for `seconds`; return (taken, rejected). 429s arrive `late` seconds after they were sent."""
    end, taken, rejections = clock.now + seconds, 0, []
    num_rejected = 0
    while clock.now < end:
        while rejections and rejections[0] + late <= clock.now:
            pacer.rejected(rejections.pop(0), None)
        wait = pacer.wait()
        if wait > 0:
            clock.now += min(max(wait, 1e-6), 0.05)
            continue
        pacer.sent()
        if endpoint.take():
            taken += 1
        else:
            num_rejected += 1
            rejections.append(clock.now)
    return taken, num_rejected


@pytest.mark.parametrize(
    ("rate", "burst_seconds", "share"),
    [(2.0, 0.5, 0.8), (8.0, 0.02, 0.92), (8.0, 0.5, 0.97), (50.0, 0.02, 0.94), (50.0, 0.5, 0.97), (50.0, 2.0, 0.97), (400.0, 0.5, 0.97)],
)
def test_an_unknown_limit_is_found_and_used(rate: float, burst_seconds: float, share: float) -> None:
    """Few requests a second, or a limit that allows no burst at all, cost a little more: each 429 says less, or comes earlier."""
    clock = Clock()
    pacer, endpoint = Pacer(clock=clock), Endpoint(clock, rate, max(rate * burst_seconds, 1.0))
    simulate(pacer, clock, endpoint, 20.0, late=0.1)
    taken, rejected = simulate(pacer, clock, endpoint, 60.0, late=0.1)
    assert taken >= share * rate * 60 and rejected <= 0.05 * taken


def test_a_limit_that_moves_is_followed_within_fifteen_seconds() -> None:
    clock = Clock()
    pacer, endpoint = Pacer(clock=clock), Endpoint(clock, 50.0, 25.0)
    simulate(pacer, clock, endpoint, 30.0)
    for rate in (25.0, 50.0, 100.0):
        endpoint.rate = rate
        simulate(pacer, clock, endpoint, 15.0)
        assert simulate(pacer, clock, endpoint, 10.0)[0] >= 0.95 * rate * 10


def test_known_limits_are_kept_and_followed() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    endpoint = Endpoint(clock, 50.0, 5.0)
    pacer.told(Limits(requests=3000.0))
    assert pacer.rate == pytest.approx(50 * 0.995)
    taken, rejected = simulate(pacer, clock, endpoint, 60.0)
    assert taken >= 0.99 * 3000 and rejected == 0
    pacer.told(Limits())
    assert pacer.rate == pytest.approx(50 * 0.995), "an answer without headers changes nothing"
    pacer.told(Limits(requests=6000.0))
    assert pacer.rate == pytest.approx(100 * 0.995)
    pacer.told(Limits(requests=600.0))
    assert pacer.rate == pytest.approx(10 * 0.995)


def test_headers_never_lift_a_limit_of_the_settings() -> None:
    pacer = Pacer(60.0, clock=Clock())
    pacer.told(Limits(requests=6000.0))
    assert pacer.rate == pytest.approx(0.995)


def test_a_token_limit_becomes_one_of_requests() -> None:
    pacer = Pacer(tokens_per_minute=60_000, clock=Clock())
    pacer.answered(500)
    assert pacer.rate == pytest.approx(2 * 0.995)
    for _ in range(200):
        pacer.answered(1000)
    assert pacer.ceiling == pytest.approx(0.995, rel=0.01)


def test_a_long_wait_holds_everybody_and_a_short_one_does_not() -> None:
    clock = Clock()
    pacer = Pacer(clock=clock)
    pacer.wait()
    pacer.sent()
    pacer.rejected(clock.now, SHORT_WAIT)
    clock.now += 0.5
    assert pacer.wait() == 0
    pacer.rejected(clock.now, 30.0)
    clock.now += 10
    assert pacer.wait() == pytest.approx(20.0)


def test_hours_without_a_429() -> None:
    clock = Clock()
    pacer = Pacer(120.0, clock=clock)
    taken, _ = simulate(pacer, clock, Endpoint(clock, 4.0, 4.0), 4 * 3600.0)
    assert taken == pytest.approx(0.995 * 2 * 4 * 3600, rel=0.01)


def test_an_idle_client_does_not_save_up() -> None:
    clock = Clock()
    pacer = Pacer(6000.0, clock=clock)
    clock.now += 3600
    sent = 0
    while pacer.wait() == 0:
        pacer.sent()
        sent += 1
    assert sent <= 11, "a tenth of a second's worth"


def test_header_forms() -> None:
    assert [duration(text) for text in ("6m0s", "1s", "20ms", "1h2m", "", None, "1x")] == [360.0, 1.0, 0.02, 3720.0, None, None, None]
    bucket = {"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "2999", "x-ratelimit-reset-requests": "20ms"}
    day = {"x-ratelimit-limit-requests": "14400", "x-ratelimit-remaining-requests": "14370", "x-ratelimit-reset-requests": "2m59.56s"}
    tokens = {"x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-tokens": "17000", "x-ratelimit-reset-tokens": "3.3s"}
    assert told_limits(bucket) == Limits(3000.0) and told_limits(day) == Limits() and told_limits({**day, **tokens}) == Limits(None, 18000.0)
    assert told_limits({**bucket, "x-ratelimit-remaining-requests": "many"}) == Limits() == told_limits({})
    assert retry_after({"retry-after-ms": "20", "retry-after": "9"}) == 0.02


def test_retries_go_first_then_those_who_have_asked_least() -> None:
    future: asyncio.Future[None] = asyncio.new_event_loop().create_future()
    turns = [Turn(attempt, before, number, future) for number, (attempt, before) in enumerate([(0, 3), (0, 0), (1, 3), (0, 0), (2, 1)])]
    assert [turn.number for turn in sorted(turns)] == [4, 2, 1, 3, 0]


def test_never_more_in_flight_than_allowed() -> None:
    async def main() -> None:
        dispatcher, most = Dispatcher(7, Pacer(6e6)), 0

        async def call() -> None:
            nonlocal most
            turn = await dispatcher.enter()
            most = max(most, dispatcher.in_flight)
            await asyncio.sleep(random.uniform(0, 0.002))
            dispatcher.leave(turn, "answered")

        await asyncio.gather(*(call() for _ in range(200)))
        assert most == 7 and dispatcher.in_flight == 0

    asyncio.run(main())


def test_cancelled_calls_give_their_turns_back() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(2, Pacer(6e6))
        held = [await dispatcher.enter() for _ in range(2)]
        waiting = [asyncio.ensure_future(dispatcher.enter()) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        dispatcher.leave(held[0], "answered")
        waiting[1].cancel()  # its turn has just come
        await asyncio.sleep(0.01)
        dispatcher.leave(held[1], "answered")
        done = await asyncio.gather(*waiting[2:])
        for turn in done:
            dispatcher.leave(turn, "answered")
        assert dispatcher.in_flight == 0

    asyncio.run(main())


def test_failures_in_a_row_open_the_circuit_and_one_answer_closes_it() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(50, Pacer(6e6))
        turns = [await dispatcher.enter() for _ in range(OPEN_FAILURES + 5)]
        for turn in turns[:OPEN_FAILURES]:
            dispatcher.leave(turn, "overload")
        assert dispatcher.open and dispatcher.pacer.wait() > 0.5
        dispatcher.leave(turns[-1], "answered")
        assert dispatcher.open, "it was sent before"
        for turn in turns[OPEN_FAILURES:-1]:
            dispatcher.leave(turn, "overload")
        probes = [asyncio.ensure_future(dispatcher.enter(attempt)) for attempt in (3, 0)]
        await asyncio.sleep(1.5)  # the first pause
        assert [probe.done() for probe in probes] == [False, True], "one probe, by who has tried least"
        dispatcher.leave(probes[1].result(), "answered")
        assert not dispatcher.open
        dispatcher.leave(await probes[0], "answered")

    asyncio.run(main())


def test_scattered_failures_do_not_shrink_the_window() -> None:
    async def main() -> None:
        draw, dispatcher = random.Random(1), Dispatcher(40, Pacer(6e6))
        for _ in range(5000):
            dispatcher.leave(await dispatcher.enter(), "overload" if draw.random() < 0.1 else "answered")
        assert dispatcher.window == 40 and not dispatcher.open

    asyncio.run(main())


def test_stop_lets_everybody_through_at_once() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(1, Pacer(6e6))
        await dispatcher.enter()
        waiting = [asyncio.ensure_future(dispatcher.enter(delay=delay)) for delay in (0.0, 0.0, 60.0)]
        await asyncio.sleep(0)
        dispatcher.stop()
        await asyncio.wait_for(asyncio.gather(*waiting), 1)

    asyncio.run(main())
