"""The API client against a real HTTP server on loopback with scripted faults; tests/faults has the whole fault matrix."""

from __future__ import annotations

import asyncio
import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from advchain.errors import AccessError, BudgetError, ConfigError
from advchain.llm.client import Client, Completion
from advchain.llm.faults import AnswerError, MalformedBody, parse_body, safe_message
from advchain.llm.limits import retry_after
from advchain.specs import TeacherSpec
from advchain.store import Store

SECRET = "sk-test-1234567890abcdef"
MESSAGES = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Which mountain range lies between France and Spain?"}]
Reply = Callable[[Any, dict[str, Any]], None]


def completion(text: str | None = "The Pyrenees.", finish: str = "stop", model: str = "m-1", **extra: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
        **extra,
    }


def send(handler: Any, status: int, body: bytes, headers: dict[str, str] | None = None, content_type: str = "application/json") -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def ok(**changes: Any) -> Reply:
    return lambda handler, request: send(handler, 200, json.dumps(completion(**changes)).encode())


def raw(body: bytes, content_type: str = "application/json") -> Reply:
    return lambda handler, request: send(handler, 200, body, content_type=content_type)


def fault(status: int, headers: dict[str, str] | None = None, **error: Any) -> Reply:
    return lambda handler, request: send(handler, status, json.dumps({"error": error}).encode(), headers)


class Server:
    """Answers with the scripted replies in turn, the last one for ever; remembers requests and how many were open at once."""

    def __init__(self, *script: Reply) -> None:
        self.script, self.requests, self.keys = list(script), [], []
        self.open = self.most_open = 0
        self.lock = threading.Lock()

    def take(self, handler: Any) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append(request)
            self.keys.append(handler.headers.get("Authorization"))
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            reply(handler, request)
        finally:
            with self.lock:
                self.open -= 1


@contextmanager
def serving(*script: Reply) -> Iterator[tuple[Server, TeacherSpec]]:
    server = Server(*script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.take(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        try:
            yield server, TeacherSpec(name="scripted", base_url=url, model="m", max_retries=2, timeout_seconds=5)
        finally:
            http.shutdown()


def ask(teacher: TeacherSpec, store: Store | None = None, *, seeds: tuple[int, ...] = (1,), **changes: Any) -> tuple[list[Completion], Client]:
    async def main() -> tuple[list[Completion], Client]:
        async with Client(teacher, store, backoff_seconds=0.01) as client:
            return [await client.complete(changes.get("messages", MESSAGES), seed=seed, purpose="test") for seed in seeds], client

    return asyncio.run(main())


def failing(teacher: TeacherSpec, kind: type[Exception], **arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        ask(teacher, **arguments)
    return str(caught.value)


def test_answer_and_usage() -> None:
    with serving(ok()) as (server, teacher):
        priced = teacher.model_copy(update={"usd_per_million_input": 10.0, "usd_per_million_output": 100.0})
        answers, client = ask(priced)
    assert answers == [Completion("The Pyrenees.", "stop", "m-1", 20, 5)]
    assert server.requests[0]["seed"] == 1 and server.requests[0]["messages"] == MESSAGES
    assert client.usage.paid_usd == pytest.approx(0.0007) and client.usage.by_purpose == {"test": 1}


def test_cache_hit_sends_nothing(tmp_path: Path) -> None:
    with serving(ok()) as (server, teacher):
        for _ in range(2):
            with Store(tmp_path / "a.store") as store:
                answers, client = ask(teacher, store)
        assert len(server.requests) == 1
    assert answers[0].cached and answers[0].text == "The Pyrenees."
    assert (client.usage.num_calls, client.usage.num_cached, client.usage.paid_usd) == (0, 1, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"temperature": 0.1},
        {"max_tokens": 7},
        {"messages": MESSAGES[:1]},
        {"seeds": (2,)},
        {"sample_index": 1},
        {"base_url": "https://elsewhere.example/v1"},
    ],
)
def test_every_key_part_matters(change: dict[str, Any]) -> None:
    base = TeacherSpec(name="a", base_url="http://127.0.0.1:1/v1", model="m")
    fields = {name: value for name, value in change.items() if name in TeacherSpec.model_fields}
    other = base.model_copy(update=fields)
    key = Client(other).key(change.get("messages", MESSAGES), change.get("seeds", (1,))[0], change.get("sample_index", 0))
    assert key != Client(base).key(MESSAGES, 1)


def test_unrelated_settings_keep_the_key() -> None:
    base = TeacherSpec(name="a", base_url="http://127.0.0.1:1/v1", model="m")
    other = base.model_copy(update={"name": "b", "base_url": "http://localhost:9/v1", "max_in_flight": 1, "timeout_seconds": 3, "usd_per_million_input": 5})
    assert Client(base).key(MESSAGES, 1) == Client(other).key(MESSAGES, 1)


def test_retry_after_forms() -> None:
    now = time.time()
    assert retry_after({"retry-after": email.utils.formatdate(now + 30, usegmt=True)}, now) == pytest.approx(30, abs=1.1)
    values = ("0", "-4", "86400", "soon", "", "inf")
    assert [retry_after({"retry-after": value}) for value in values] == [0.0, 0.0, 86400.0, None, None, None] and retry_after({}) is None


def test_body_cut_at_every_byte_is_malformed() -> None:
    body = json.dumps(completion()).encode()
    assert parse_body(body).text == "The Pyrenees."
    for end in range(len(body)):
        with pytest.raises(MalformedBody):
            parse_body(body[:end])


MALFORMED = {
    "html": b"<html><body>Welcome</body></html>",
    "empty": b"",
    "no_choices": json.dumps({**completion(), "choices": []}).encode(),
    "choices_null": json.dumps({**completion(), "choices": None}).encode(),
    "list": b"[]",
    "content_number": json.dumps(completion(text=3)).encode(),  # type: ignore[arg-type]
    "nan": json.dumps({**completion(), "created": float("nan")}).encode(),
    "twice": b'{"choices": [], "choices": []}',
    "latin1": '{"é": 1}'.encode("latin-1"),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_malformed_body_is_retried(name: str) -> None:
    with serving(raw(MALFORMED[name], "text/html" if name == "html" else "application/json"), ok()) as (_, teacher):
        answers, client = ask(teacher)
    assert answers[0].text == "The Pyrenees." and client.usage.faults == {"malformed": 1}


def test_the_environments_proxy_is_used_and_netrc_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", SECRET)
    (tmp_path / "netrc").write_text("machine api.example.invalid login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(ok()) as (server, teacher):
        monkeypatch.setenv("http_proxy", teacher.base_url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "other.example.invalid")
        away = teacher.model_copy(update={"base_url": "http://api.example.invalid/v1", "api_key_env": "SCRIPTED_KEY", "max_retries": 0})
        assert ask(away)[0][0].text == "The Pyrenees." and server.keys == [f"Bearer {SECRET}"]
        failing(away.model_copy(update={"base_url": "http://other.example.invalid/v1"}), AccessError)
        assert len(server.requests) == 1


def test_only_malformed_bodies_name_the_url_or_the_row() -> None:
    with serving(raw(MALFORMED["html"], "text/html")) as (server, teacher):
        assert "/v1" in failing(teacher, AccessError) and len(server.requests) == 3
    with serving(ok(), raw(MALFORMED["html"])) as (server, teacher):
        failing(teacher, AnswerError, seeds=(1, 2))
        assert len(server.requests) == 4


def test_after_a_fatal_error_nothing_more_is_sent() -> None:
    async def main(teacher: TeacherSpec) -> list[Any]:
        async with Client(teacher) as client:
            first = asyncio.gather(*(client.complete(MESSAGES, seed=seed, purpose="test") for seed in range(8)), return_exceptions=True)
            return await first

    with serving(fault(401)) as (server, teacher):
        outcomes = asyncio.run(main(teacher.model_copy(update={"max_in_flight": 1})))
        assert len(server.requests) == 1
    assert all(isinstance(outcome, AccessError) for outcome in outcomes)


def test_server_messages_that_quote_the_prompt_are_not_shown() -> None:
    prompt = MESSAGES[1]["content"]
    assert prompt not in safe_message(f"invalid input: {prompt}", None, [prompt])
    assert safe_message("the model is overloaded, try again in a moment please", None, [prompt]).startswith("the model")


def test_construction_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = TeacherSpec(name="a", base_url="https://api.example.com/v1", model="m", api_key_env="NO_SUCH_KEY")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(AccessError, match="NO_SUCH_KEY"):
        Client(teacher)
    monkeypatch.setenv("NO_SUCH_KEY", "  ")
    with pytest.raises(AccessError, match="NO_SUCH_KEY"):
        Client(teacher)
    with pytest.raises(ConfigError, match="prices"):
        Client(teacher.model_copy(update={"api_key_env": None, "budget_usd": 1.0}))
    with pytest.raises(ConfigError) as caught:
        Client(teacher.model_copy(update={"base_url": f"https://user:{SECRET}@api.example.com/v1"}))
    assert SECRET not in str(caught.value)


def test_budget_stops_before_the_call_and_resume_asks_the_rest(tmp_path: Path) -> None:
    with serving(ok()) as (server, teacher):
        priced = teacher.model_copy(update={"usd_per_million_output": 1000.0, "max_tokens": 10, "budget_usd": 0.021})  # 0.005 each, 0.01 at worst
        with Store(tmp_path / "a.store") as store:
            failing(priced, BudgetError, store=store, seeds=(1, 2, 3, 4, 5))
            sent = len(server.requests)
            assert sent == 3 and len(store) == 3
            answers, _ = ask(priced.model_copy(update={"budget_usd": 1.0}), store, seeds=(1, 2, 3, 4, 5))
        assert len(server.requests) == 5
    assert [answer.cached for answer in answers] == [True, True, True, False, False]


def test_max_in_flight_holds() -> None:
    def slow(handler: Any, request: dict[str, Any]) -> None:
        time.sleep(0.4)
        ok()(handler, request)

    async def main(teacher: TeacherSpec) -> None:
        async with Client(teacher) as client:
            await asyncio.gather(*(client.complete(MESSAGES, seed=seed, purpose="test") for seed in range(12)))

    with serving(slow) as (server, teacher):
        asyncio.run(main(teacher.model_copy(update={"max_in_flight": 3})))
        assert server.most_open == 3 and len(server.requests) == 12
