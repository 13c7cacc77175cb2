"""RELIABILITY A: what an endpoint can do to the client, over real sockets to a server in another process. A10 is tested with the chains."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import resource
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from api_server.launch import api_server
from calls import ask, messages, teacher

from advchain.errors import AccessError, BudgetError
from advchain.llm import client as client_module
from advchain.llm.ask import Asker, Prompt
from advchain.llm.client import Client, Completion
from advchain.llm.faults import AnswerError, EndpointError
from advchain.llm.replies import Rejected, text_field
from advchain.ports import free_port
from advchain.store import Store

FOR_EVER = {"times": None}
LIMITED = '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'


def status(number: int, **more: Any) -> dict[str, Any]:
    return {"do": "status", "status": number, **more}


@pytest.mark.parametrize(
    ("headers", "at_least"),
    [
        ({"Retry-After": "1"}, 1.0),
        ({"Retry-After-Ms": "300"}, 0.3),
        ({"Retry-After": email.utils.formatdate(7200 + 1, usegmt=True), "Date": email.utils.formatdate(7200, usegmt=True)}, 1.0),
        ({"Retry-After": "0"}, 0.0),
        ({}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
    ],
)
def test_a1_waits_as_told_and_slows_down(headers: dict[str, str], at_least: float) -> None:
    with api_server(script=[status(429, body=LIMITED, headers=headers)]) as server:
        run = ask(teacher(server))
    assert run.right == 1 and at_least <= run.seconds < at_least + 20
    assert run.client.usage.faults == {"rate_limit": 1} and run.client.dispatcher.pacer.rate < 10.0


def test_a1_a_wait_beyond_the_cap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_WAIT_SECONDS", 0.05)
    with api_server(script=[status(429, headers={"Retry-After": "86400"}, **FOR_EVER)]) as server:
        assert "86400 s" in str(ask(teacher(server)).error)


def test_a1_nothing_is_lost_under_a_limit() -> None:
    with api_server(rate=100, burst_seconds=0.25, retry_after="0.5") as server:
        run = ask(teacher(server), 800)
        counts = server.stats()["counts"]
    assert run.right == 800 and run.seconds < 800 / 100 * 1.5
    assert counts["rejected"] <= 0.05 * counts["answers"]


def test_a1_a_limit_in_the_headers_is_kept() -> None:
    with api_server(rate=100, burst_seconds=0.25, limit_headers=True) as server:
        run = ask(teacher(server), 500)
        counts = server.stats()["counts"]
    assert run.right == 500 and counts.get("rejected", 0) <= 0.01 * counts["answers"]


def test_a1_open_requests_are_counted_where_the_endpoint_counts_them() -> None:
    """Eight at once; the ninth is told so. The number in flight goes down, not the rate."""
    refusal = '{"error": {"message": "concurrency limit reached", "code": "429"}}'
    with api_server(latency_seconds=0.2, script=[{"do": "answer", "seconds": 0.5, "times": 4}, status(429, body=refusal)]) as server:
        run = ask(teacher(server), 12)
    assert run.right == 12 and run.client.usage.faults == {"concurrency": 1} and run.client.dispatcher.window < 12


def test_a3_scattered_server_errors() -> None:
    with api_server(faults={"500": 0.02, "502": 0.01, "503": 0.01, "529": 0.01}, latency_seconds=0.02) as server:
        run = ask(teacher(server), 400)
        counts = server.stats()["counts"]
    assert run.right == 400 and 400 < counts["requests"] <= 1.3 * 400


def test_a3_an_outage_opens_the_circuit_and_ends() -> None:
    """All 503 for 20 seconds in the middle: probes only, and everything is answered in the end."""
    with api_server(latency_seconds=0.05) as server:

        def fail() -> None:
            server.control(script=[status(503, **FOR_EVER)])
            time.sleep(20)
            server.control(script=[])

        timer = threading.Timer(1.0, fail)
        timer.start()
        run = ask(teacher(server, max_in_flight=32, max_retries=5), 500, backoff=0.5)
        timer.join()
        counts = server.stats()["counts"]
    assert run.right == 500 and counts["script status"] >= 8, "the outage must have hit"
    assert counts["requests"] <= 1.3 * 500 and not run.client.dispatcher.open


@pytest.mark.parametrize("kind", ["refused", "dns", "tls"])
def test_a4_no_connection(kind: str) -> None:
    with api_server() as server:
        urls = {"refused": f"http://127.0.0.1:{free_port()}/v1", "dns": "http://no-such-host.invalid/v1", "tls": f"https://127.0.0.1:{server.port}/v1"}
        run = ask(teacher(base_url=urls[kind], max_retries=2))
    assert isinstance(run.error, AccessError) and run.client.usage.faults == {kind: 3}


@pytest.mark.parametrize(("action", "kind"), [({"do": "reset"}, "reset"), ({"do": "cut", "at": 0}, "cut"), ({"do": "cut", "at": 100}, "cut")])
def test_a4_broken_connection_is_retried(action: dict[str, Any], kind: str) -> None:
    with api_server(script=[action]) as server:
        run = ask(teacher(server))
    assert run.right == 1 and run.client.usage.faults == {kind: 1}


def test_a5_silence_ends_at_the_read_timeout() -> None:
    with api_server(script=[{"do": "silent"}]) as server:
        run = ask(teacher(server, read_timeout_seconds=0.4, timeout_seconds=30.0))
    assert run.right == 1 and run.client.usage.faults == {"read_timeout": 1} and run.seconds < 20


def test_a5_a_drip_ends_at_the_total_timeout() -> None:
    with api_server(script=[{"do": "drip", "seconds": 0.05}]) as server:
        run = ask(teacher(server, read_timeout_seconds=0.4, timeout_seconds=1.0))
    assert run.right == 1 and run.client.usage.faults == {"timeout": 1} and run.seconds < 20


def test_a5_blank_lines_keep_a_slow_answer_alive() -> None:
    with api_server(script=[{"do": "blank lines", "lines": 8, "seconds": 0.1}]) as server:
        run = ask(teacher(server, read_timeout_seconds=0.4))
    assert run.right == 1 and not run.client.usage.faults and run.seconds > 0.8


def test_a5_a_full_listener_ends_at_the_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        run = ask(teacher(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connect_timeout_seconds=0.3, max_retries=0, timeout_seconds=30.0))
        for connection in waiting:
            connection.close()
    assert run.client.usage.faults == {"connect_timeout": 1} and run.seconds < 20


def test_a6_a_body_cut_at_every_byte_is_never_an_answer(tmp_path: Path) -> None:
    with api_server() as server, Store(tmp_path / "whole.store") as store:
        ask(teacher(server), 1, store)
        length = len(next(iter(store.values()))["text"]) + 250  # the envelope is longer than that
        server.control(script=[action for at in range(length) for action in ({"do": "cut", "at": at}, {"do": "answer"})], reset=True)
        with Store(tmp_path / "cut.store") as kept:
            run = ask(teacher(server, requests_per_minute=1e6), length, kept, one_by_one=True, backoff=0.001)
            assert len(kept) == length
    assert run.right == length and run.client.usage.faults == {"cut": length}


BODIES = {
    "html": "<html>busy</html>",
    "empty": "",
    "no choices": '{"choices": []}',
    "number": '{"choices": [{"message": {"content": 3}}]}',
    "twice": '{"choices": [], "choices": []}',
    "nan": '{"choices": [{"message": {"content": "x"}}], "created": NaN}',
    "not utf-8": "\xff\xfe",
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a7_a_body_that_is_no_completion(name: str) -> None:
    with api_server(script=[{"do": "answer"}, {"do": "body", "body": BODIES[name], "times": 3}]) as server:
        run = ask(teacher(server, max_retries=2), 3, one_by_one=True)
    assert isinstance(run.outcomes[1], AnswerError), "retried up to the cap, then this row only is given up"
    assert run.right == 2 and run.client.usage.faults == {"malformed": 3}


def test_a7_a_huge_body_is_not_held() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with api_server(script=[{"do": "body", "body": " ", "repeat": 50_000_000}]) as server:
        run = ask(teacher(server))
    assert run.right == 1 and run.client.usage.faults == {"malformed": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000, "kilobytes"


UNFINISHED: list[dict[str, Any]] = [
    {"changes": {"finish": "length"}},
    {"changes": {"finish": "content_filter"}},
    {"changes": {"finish": "tool_calls"}},
    {"text": None, "changes": {"message": {"reasoning_content": "thinking"}}},
    {"text": "  "},
]


@pytest.mark.parametrize("answer", UNFINISHED)
def test_a8_an_unfinished_answer_is_never_kept(tmp_path: Path, answer: dict[str, Any]) -> None:
    with api_server(script=[{"do": "answer", **answer}]) as server, Store(tmp_path / "a.store") as store:
        assert not next(done.whole for done in ask(teacher(server), 1, store).outcomes if isinstance(done, Completion))
        assert len(store) == 0 and ask(teacher(server), 1, store).right == 1 and len(store) == 1


def put_question(server: Any, tmp_path: Path, attempts: int = 3) -> tuple[Asker, Any]:
    async def main() -> tuple[Asker, Any]:
        with Store(tmp_path / "a.store") as store:
            async with Client(teacher(server), store, backoff_seconds=0.01) as client:
                asker = Asker(client, seed=0, attempts=attempts)
                try:
                    return asker, await asker.ask(Prompt("step", 1, "Write a step.\n"), "r1", {}, lambda fields: text_field(fields, "step"))
                except Rejected as error:
                    return asker, error.reason

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("I'm sorry, but I can't help with that.", "teacher_refused"), ('{"row": "r2", "step": "of another row"}', "wrong_row"), ("```\nno object", "unparsable")],
)
def test_a8_a11_refusals_and_other_rows_answers_are_asked_again(tmp_path: Path, text: str, reason: str) -> None:
    bad = {"do": "answer", "text": text}
    with api_server(script=[bad, {"do": "answer", "text": '{"row": "r1", "step": "good"}'}]) as server:
        asker, value = put_question(server, tmp_path)
        assert value == "good" and asker.retries == {reason: 1} and server.stats()["different"] == 2, "another seed is another request"
    (tmp_path / "a.store").unlink()
    with api_server(script=[{**bad, **FOR_EVER}]) as server:
        assert put_question(server, tmp_path)[1] == reason


REFUSALS = [
    (400, "bad", "bad_request"),
    (401, "invalid_api_key", "auth"),
    (402, "", "quota"),
    (403, "", "forbidden"),
    (404, "model_not_found", "not_found"),
    (429, "insufficient_quota", "quota"),
]


@pytest.mark.parametrize(("number", "code", "kind"), REFUSALS)
def test_a9_what_waiting_does_not_mend_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, kind: str) -> None:
    secret = "sk-planted-0123456789"
    monkeypatch.setenv("TESTED_KEY", secret)
    body = json.dumps({"error": {"message": f"no: {secret}", "code": code}})
    with api_server(script=[{"do": "answer", "times": 3}, status(number, body=body, **FOR_EVER)]) as server, Store(tmp_path / "a.store") as store:
        run = ask(teacher(server, api_key_env="TESTED_KEY"), 8, store, one_by_one=True)
        stats = server.stats()
        assert len(store) == 3 and stats["counts"]["requests"] == 4 and stats["keys"] == {f"Bearer {secret}": 4}
    assert isinstance(run.error, EndpointError) and run.error.kind == kind and str(number) in str(run.error)
    assert number in (400, 404) or "TESTED_KEY" in str(run.error)
    written = "".join(path.read_text() for path in tmp_path.iterdir()) + str(run.error)
    assert secret not in written and "Repeat the row" not in written.partition("faults")[2]


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
def test_a9_a_request_that_is_too_long_or_filtered_concerns_its_row_only(code: str) -> None:
    with api_server(script=[status(400, body=json.dumps({"error": {"code": code, "message": "no"}}))]) as server:
        first, second = ask(teacher(server), 2, one_by_one=True).outcomes
    assert isinstance(first, Completion) and not first.whole and isinstance(second, Completion) and second.whole


def test_a12_equal_requests_in_flight_are_sent_once(tmp_path: Path) -> None:
    async def main(spec: Any, store: Store) -> list[Completion]:
        async with Client(spec, store) as client:
            return await asyncio.gather(*(client.complete(messages(0), seed=1, purpose="test") for _ in range(5)))

    with api_server(latency_seconds=0.2) as server, Store(tmp_path / "a.store") as store:
        answers = asyncio.run(main(teacher(server), store))
        assert server.stats()["counts"]["requests"] == 1 and len(store) == 1
    assert len({answer.text for answer in answers}) == 1 and [answer.cached for answer in answers].count(False) == 1


def test_a12_an_answer_that_was_lost_on_the_way_counts_against_the_budget(tmp_path: Path) -> None:
    with api_server(script=[{"do": "cut", "at": 50}]) as server, Store(tmp_path / "a.store") as store:
        run = ask(teacher(server, usd_per_million_output=1e3, max_tokens=100, budget_usd=5.0), 1, store)
        assert len(store) == 1 and run.right == 1
    assert run.client.budget.spent == pytest.approx(0.1 + run.client.usage.paid_usd) and run.client.budget.reserved == pytest.approx(0)


def test_a13_another_model_is_reported_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = {"do": "answer", "changes": {"model": "test-model-2", "system_fingerprint": "fp_2"}}
    script = [{"do": "answer"}, {**changes_for(2), **changed}]
    with api_server(script=script) as server, Store(tmp_path / "a.store") as store, caplog.at_level(logging.WARNING):
        run = ask(teacher(server), 2, store, one_by_one=True)
        assert [(value["model"], value["fingerprint"]) for value in store.values()] == [("test-model-1", "fp_1"), ("test-model-2", "fp_2")]
    assert "test-model-2" in caplog.text and run.client.usage.figures()["answers_by_model"] == {"test-model-1@fp_1": 1, "test-model-2@fp_2": 1}
    with api_server(script=script) as server, Store(tmp_path / "b.store") as store:
        run = ask(teacher(server, strict_model=True), 4, store, one_by_one=True)
        assert isinstance(run.error, AccessError) and "test-model-2" in str(run.error) and len(store) == 1 and server.stats()["counts"]["requests"] == 2


def changes_for(row: int) -> dict[str, Any]:
    return {"text": json.dumps({"row": f"r{row - 1}"})}


def test_a14_the_budget_is_hard_and_resume_asks_only_the_rest(tmp_path: Path) -> None:
    priced = {"usd_per_million_output": 1000.0, "max_tokens": 20, "budget_usd": 0.2}  # 0.02 a call at most
    with api_server(latency_seconds=0.02) as server:
        for budget in (0.2, 0.2, 10.0):
            with Store(tmp_path / "a.store") as store:
                run = ask(teacher(server, **{**priced, "budget_usd": budget}), 40, store)
                spent = sum(run.client.budget.price(0, value["output_tokens"]) for value in store.values())
                if budget < 1:
                    assert isinstance(run.error, BudgetError) and 0.1 < spent <= budget
        stats = server.stats()
    assert run.right == 40 and stats["asked_again"] == 0 and stats["counts"]["requests"] == 40


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a15_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """The wall clock jumps by an hour while calls are paced and while a Retry-After date is waited for."""
    date = {"Date": email.utils.formatdate(7200, usegmt=True), "Retry-After": email.utils.formatdate(7201, usegmt=True)}
    real, start = time.time, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: real() + (jump if time.monotonic() - start > 0.7 else 0.0))
    with api_server(rate=60, script=[status(429, headers=date)]) as server:
        run = ask(teacher(server, requests_per_minute=3600), 120)
    assert run.right == 120 and 1.5 < run.seconds < 60
