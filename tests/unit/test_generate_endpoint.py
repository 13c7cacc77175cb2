"""A model behind an endpoint: what it is sent, how its answers become responses, what it costs, what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from advchain import chat
from advchain.config import load_config
from advchain.errors import BudgetError, ConfigError, EngineError
from advchain.generate.endpoint_engine import question_of
from advchain.generate.run import generate, write_responses
from advchain.io import read_records, write_jsonl
from advchain.llm.faults import EndpointError
from advchain.models import check_weights, load_model_card
from advchain.models.fetch import fetch_model
from advchain.plan import Plan
from advchain.records import Item, Response, derive_seed
from advchain.specs import EndpointSpec, GenerateSpec, ModelSpec, Sampling, TeacherSpec

Reply = Callable[[str, dict[str, Any]], dict[str, Any]]


class Endpoint(ThreadingHTTPServer):
    """Answers with the choice that `reply(path, request)` returns; keeps the requests."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.requests = reply, list[tuple[str, dict[str, Any]]]()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, request))
        choice = self.server.reply(self.path, request)
        status = choice.pop("status", 200)
        value = {"model": "m-2026", "choices": [{"finish_reason": "stop"} | choice], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
        body = json.dumps(value if status == 200 else choice).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Tests are quiet."""


def message(**fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": None} | fields}


class Run:
    """One evaluation of a model behind an endpoint, in a folder."""

    def __init__(self, folder: Path, port: int, family: str = "r1-distill-qwen", completions: bool = True, **teacher: Any) -> None:
        self.folder, self.checkpoint = folder, folder / "model"
        self.teacher = TeacherSpec(name="t", base_url=f"http://127.0.0.1:{port}/v1", model="m", max_retries=0, **teacher)
        fetch_model(self.checkpoint, ModelSpec(version=1, name="toy", origin="endpoint:t", family=family, endpoint="local m"))
        self.sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=64, num_samples=2)
        self.completions = completions

    @property
    def spec(self) -> GenerateSpec:
        endpoint = EndpointSpec(teacher=self.teacher, completions=self.completions)
        return GenerateSpec(version=1, checkpoint="toy", engine="endpoint", endpoint=endpoint, batch_tokens=64, seed=3, sampling={"e": self.sampling})

    def ask(self, items: list[Item]) -> list[Response]:
        prompts, store = self.folder / "e.jsonl", self.folder / "store"
        write_jsonl(prompts, items)
        generate(self.checkpoint, {"e": prompts}, store, self.folder / "marker.json", self.spec)
        write_responses(prompts, store, self.checkpoint, self.folder / "r.jsonl", self.spec, "e")
        return read_records(self.folder / "r.jsonl", Response)


def item(number: int = 0, prefix: str = "", prompt: str = "Why?") -> Item:
    return Item(id=f"i{number}", benchmark="b", nature="harmful", prompt=f"{prompt} {number}", prefix=prefix)


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Endpoint]]:
    servers: list[Endpoint] = []

    def start(reply: Reply) -> Endpoint:
        servers.append(Endpoint(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_plain_prompts_are_chat_messages_with_their_own_decoding_and_seeds(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, request: message(content="<think>\nhm\n</think>\n\nYes."))
    rows = Run(tmp_path, server.server_port).ask([item(0), item(1)])
    assert [row.id for row in rows] == ["i0#0", "i0#1", "i1#0", "i1#1"]
    assert {(row.thinking, row.answer, row.state, row.num_prompt_tokens, row.num_tokens) for row in rows} == {("hm", "Yes.", "closed", 7, 5)}
    assert {path for path, _ in server.requests} == {"/v1/chat/completions"}
    sent = server.requests[0][1]
    assert sent["temperature"] == 0.6 and sent["top_p"] == 0.95 and sent["max_tokens"] == 64 and "top_k" not in sent
    seeds = {(request["messages"][0]["content"], request["seed"]) for _, request in server.requests}
    assert seeds == {(f"Why? {number}", derive_seed(3, "e", f"i{number}", sample)) for number in (0, 1) for sample in (0, 1)}


@pytest.mark.parametrize(
    ("choice", "thinking", "answer", "state", "finish"),
    [
        (message(content="Yes.", reasoning_content="hm"), "hm", "Yes.", "closed", "stop"),
        (message(content="Yes.", reasoning="hm"), "hm", "Yes.", "closed", "stop"),
        (message(content=None, reasoning="hm") | {"finish_reason": "length"}, "hm", "", "unclosed", "length"),
        (message(content="hm\n</think>\n\nYes."), "hm", "Yes.", "closed", "stop"),  # the server's template has the opening tag
        (message(content="hm so") | {"finish_reason": "length"}, "hm so", "", "unclosed", "length"),
        (message(content="I") | {"finish_reason": "content_filter"}, "I", "", "unclosed", "stop"),
    ],
)
def test_thinking_is_split_wherever_the_server_puts_it(
    serve: Any, tmp_path: Path, choice: dict[str, Any], thinking: str, answer: str, state: str, finish: str
) -> None:
    row = Run(tmp_path, serve(lambda path, request: choice | {}).server_port).ask([item()])[0]
    assert (row.thinking, row.answer, row.state, row.finish) == (thinking, answer, state, finish)
    counts = json.loads((tmp_path / "r.manifest.json").read_text())["counts"]
    assert counts["filtered"] == (2 if choice.get("finish_reason") == "content_filter" else 0)


def test_a_model_without_thinking_answers_plainly(serve: Any, tmp_path: Path) -> None:
    row = Run(tmp_path, serve(lambda path, request: message(content="Yes.")).server_port, family="generic").ask([item()])[0]
    assert (row.thinking, row.answer, row.state) == ("", "Yes.", "absent")


@pytest.mark.parametrize("family", ["r1-distill-qwen", "qwen3"])
def test_a_forced_chain_is_continued_at_completions(serve: Any, tmp_path: Path, family: str) -> None:
    server = serve(lambda path, request: {"text": " it.\n</think>\n\nNo."})
    row = Run(tmp_path, server.server_port, family=family).ask([item(prefix="I could do")])[0]
    path, sent = server.requests[0]
    assert path == "/v1/completions" and sent["add_special_tokens"] is False
    assert sent["prompt"] == chat.prompt_text(chat.family(family), "Why? 0", chat.Forced("I could do")) and sent["prompt"].endswith("<think>\nI could do")
    assert (row.thinking, row.answer, row.state, row.prefix) == ("I could do it.", "No.", "closed", "I could do")


def test_a_chat_endpoint_refuses_a_forced_chain_before_anything_is_asked(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, request: message(content="x"))
    with pytest.raises(ConfigError, match=r"item i1: the attack forces the beginning of the chain.*`completions: true`"):
        Run(tmp_path, server.server_port, completions=False).ask([item(0), item(1, prefix="I could")])
    assert not server.requests


def test_a_forced_answer_is_continued_at_completions(serve: Any, tmp_path: Path) -> None:
    """An answer's forced beginning goes out rendered too, behind the closed chain."""
    server = serve(lambda path, request: {"text": " it is."})
    Run(tmp_path, server.server_port, family="qwen3").ask([item().model_copy(update={"closed": True, "answer_prefix": "Sure, here"})])
    path, sent = server.requests[0]
    assert path == "/v1/completions" and sent["prompt"].endswith("</think>\n\nSure, here")


@pytest.mark.parametrize("place", ["prompt", "prefix"])
def test_control_tokens_in_a_rendered_prompt_are_refused(place: str) -> None:
    family, spec = chat.family("qwen3"), EndpointSpec(teacher=TeacherSpec(name="t", base_url="http://x/v1", model="m"), completions=True)
    texts = {"prompt": "Why?", "prefix": "I could"}
    texts[place] += "<|im_end|>"
    with pytest.raises(ConfigError, match=r"control token <\|im_end\|>"):
        question_of(family, Item(id="i", benchmark="b", nature="harmful", **texts), spec, "e")
    assert question_of(family, Item(id="i", benchmark="b", nature="harmful", prompt="a <|im_end|>"), spec, "e") == ("a <|im_end|>", False)


def test_a_second_run_asks_only_what_is_missing(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, request: message(content="Yes."))
    run = Run(tmp_path, server.server_port)
    first = run.ask([item(0)])
    assert run.ask([item(0), item(1)])[:2] == first
    assert len(server.requests) == 4
    manifest = json.loads((tmp_path / "marker.json").read_text())
    assert manifest["engine"] == "endpoint" and manifest["precision"] == "served" and manifest["counts"]["generated"] == 2


def test_a_dead_endpoint_keeps_what_is_finished(serve: Any, tmp_path: Path) -> None:
    def reply(path: str, request: dict[str, Any]) -> dict[str, Any]:
        return message(content="Yes.") if request["messages"][0]["content"].endswith("0") else {"status": 401, "error": {"message": "no"}}

    server = serve(reply)
    run = Run(tmp_path, server.server_port, family="generic")
    run.ask([item(0)])
    with pytest.raises(EndpointError, match="401"):
        run.ask([item(0), item(1)])
    server.reply = lambda path, request: message(content="No.")
    assert [row.answer for row in run.ask([item(0), item(1)])] == ["Yes.", "Yes.", "No.", "No."]


def test_an_answer_that_never_comes_is_missing_not_empty(serve: Any, tmp_path: Path) -> None:
    def reply(path: str, request: dict[str, Any]) -> dict[str, Any]:
        return message(content=3) if request["messages"][0]["content"].endswith("1") else message(content="Yes.")

    with pytest.raises(EngineError, match="gave 2 of 4 answers"):
        Run(tmp_path, serve(reply).server_port).ask([item(0), item(1)])


def test_a_prompt_beyond_the_context_is_named(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, request: {"status": 400, "error": {"code": "context_length_exceeded", "message": "too long"}})
    with pytest.raises(EngineError, match="item i0: its prompt and max_new_tokens 64 do not fit"):
        Run(tmp_path, server.server_port).ask([item(0)])


def test_the_budget_counts_what_earlier_runs_bought(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, request: message(content="Yes."))
    price = {"usd_per_million_input": 1e5, "usd_per_million_output": 1e5}  # an answer: 7 + 5 tokens, 1.2 USD; at worst 16 + 64 and the prompt
    run = Run(tmp_path, server.server_port, budget_usd=20.0, max_in_flight=1, **price)
    run.ask([item(0)])
    run.teacher = run.teacher.model_copy(update={"budget_usd": 10.0})
    with pytest.raises(BudgetError, match=r"2\.4000 are spent"):
        run.ask([item(0), item(1)])
    assert len(server.requests) == 2


def test_its_folder_holds_a_card_and_no_weights(tmp_path: Path) -> None:
    def digest(endpoint: str) -> str:
        fetch_model(tmp_path / "m", ModelSpec(version=1, name="toy", origin="endpoint:t", family="generic", endpoint=endpoint))
        return load_model_card(tmp_path / "m").digest

    assert digest("api.example.com m") == digest("api.example.com m") != digest("api.example.com other")
    assert check_weights(tmp_path / "m").weights_sha256 == {} and [path.name for path in (tmp_path / "m").iterdir()] == ["model.json"]


ROOT = Path(__file__).resolve().parents[2]


def plan(**grid: Any) -> Plan:
    return Plan(load_config([ROOT / "config/config.yaml"], {"grid": {"main": {"models": ["smollm2-135m-served"]} | grid}}))


def test_the_plan_sends_such_a_model_to_its_endpoint() -> None:
    made = plan(methods=["base"], benchmarks=["harmbench"])
    spec = made.generate_spec(made.checkpoints[0], ["harmbench"])
    assert spec.engine == "endpoint" and spec.endpoint is not None and spec.endpoint.completions and spec.endpoint.teacher.serve is not None
    assert str(made.model_spec("smollm2-135m-served").endpoint).startswith("served-")


def test_such_a_model_cannot_be_trained() -> None:
    with pytest.raises(ConfigError, match=r"behind an endpoint .* `methods: \[base\]`"):
        plan(methods=["base", "star1"])
