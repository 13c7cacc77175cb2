"""The engines beside each other with the real small model, fp32: transformers in every layout, vLLM, and `vllm serve` through the endpoint engine."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from advchain import chat
from advchain.generate.engine import Request, Settings
from advchain.generate.replicas import answer
from advchain.generate.run import generate, write_responses
from advchain.io import read_records, write_jsonl
from advchain.llm.served import Server
from advchain.models import check_template, load_tokenizer
from advchain.models.fetch import fetch_model
from advchain.records import Item, Response
from advchain.specs import EndpointSpec, GenerateSpec, ModelSpec, Sampling, ServeSpec, TeacherSpec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/bench"))
from generate import CHAINS, PROMPTS  # noqa: E402  # the measurement and its test ask the same prompts

NUM_TOKENS = 16
WORKER = ("-m", "advchain.generate.worker")
NEAR = 0.05  # logits; two engines add up in another order, so a greedy choice may differ where two tokens are as good as equal


def make_requests(model: Path, pairs: Sequence[tuple[str, str]]) -> list[Request]:
    family, tokenizer, sampling = check_template(model), load_tokenizer(model), Sampling(temperature=0.0, max_new_tokens=NUM_TOKENS)
    ids = [tuple(chat.encode_prompt(family, tokenizer, prompt, chat.Forced(prefix))) for prompt, prefix in pairs]
    return [Request(f"{number}", f"{number}", 0, number, prompt_ids, sampling) for number, prompt_ids in enumerate(ids)]


def run(model: Path, requests: list[Request], engine: Any = "transformers", python: str = sys.executable, replicas: int = 1, batch: int = 16384) -> list[str]:
    settings = Settings(str(model), engine, "fp32", max(len(r.prompt_ids) for r in requests) + NUM_TOKENS, batch_tokens=batch)
    done = {c.request.key: c.text for c in answer(settings, [[] for _ in range(replicas)], requests, 300, (python, *WORKER))}
    return [done[request.key] for request in requests]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other environment has no package of ours; no GPU, so that fp32 on the CPU is what is compared."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


PAIRS = [*((prompt, "") for prompt in PROMPTS), *CHAINS]


@pytest.fixture(scope="module")
def greedy(small_model: Path) -> list[str]:
    """What transformers writes, all rows in one batch."""
    return run(small_model, make_requests(small_model, PAIRS))


def test_transformers_writes_the_same_in_other_batches_and_processes(small_model: Path, greedy: list[str]) -> None:
    """RELIABILITY G3: one row at a time, and two processes in reverse order, give the table of one batch."""
    some = [0, 21, 50, 55]
    requests = [make_requests(small_model, PAIRS)[number] for number in some]
    assert run(small_model, requests, batch=64) == [greedy[number] for number in some]
    assert run(small_model, requests[::-1], replicas=2) == [greedy[number] for number in some[::-1]]


def test_vllm_writes_what_transformers_writes(small_model: Path, vllm_python: Path, greedy: list[str]) -> None:
    """At least 45 of 50 prompts; where they part, the two tokens were as good as equal. Forced chains go on in the middle."""
    requests = make_requests(small_model, PAIRS)
    texts = run(small_model, requests, "vllm", str(vllm_python))
    apart = [number for number, text in enumerate(texts) if text != greedy[number]]
    assert sum(number < len(PROMPTS) for number in apart) <= 5, f"prompts {apart} differ"
    for number in apart:
        assert gap_where_they_part(small_model, requests[number], texts[number], greedy[number]) < NEAR
    family = check_template(small_model)
    for number in range(len(PROMPTS), len(PAIRS)):
        prefix = PAIRS[number][1]
        assert load_tokenizer(small_model).decode(list(requests[number].prompt_ids), skip_special_tokens=False).endswith(f"<think>\n{prefix}")
        assert chat.split_response(family, texts[number], chat.Forced(prefix))[0].startswith(prefix)


def test_vllm_samples_long_prompts_with_a_seed_each(small_model: Path, vllm_python: Path) -> None:
    """More prompt tokens than a step takes: none may be read in parts on a CPU, where vLLM cannot take back a seeded draw. A row's text is its own seed's."""
    family, tokenizer, sampling = check_template(small_model), load_tokenizer(small_model), Sampling(temperature=0.8, top_p=0.95, max_new_tokens=4)
    prompts = [tuple(chat.encode_prompt(family, tokenizer, f"{number}. " + "What do the words below say? " * 70, chat.Forced(""))) for number in range(12)]
    requests = [Request(f"{i}", f"{i}", 0, i % 6, prompts[i % 6], sampling) for i in range(12)]
    assert sum(map(len, prompts)) > 4096
    texts = run(small_model, requests, "vllm", str(vllm_python))
    assert texts[:6] == texts[6:] and len(set(texts)) > 1


def gap_where_they_part(model: Path, request: Request, one: str, other: str) -> float:
    """Return how far apart the logits of the two tokens are at which two greedy texts part."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model)
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in (one, other)]
    same = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(torch.tensor([[*request.prompt_ids, *ids[0][:same]]])).logits[0, -1]
    top = logits.topk(2).values
    return float(top[0] - top[1])


def test_a_served_model_answers_through_the_endpoint_engine_as_offline(
    small_model: Path, vllm_python: Path, greedy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract with a real server: plain prompts as chat messages, forced chains at /completions; the prompt tokens are those of the offline engine."""
    monkeypatch.setenv("ADVCHAIN_GENERATE_PYTHON", str(vllm_python))
    seen: dict[str, list[int]] = {}
    stop = Server.stop

    def ask_tokens(server: Server) -> None:
        for item in items[-2:]:
            text = chat.prompt_text(check_template(small_model), item.prompt, chat.Forced(item.prefix))
            body = json.dumps({"model": "smollm2-135m", "prompt": text, "add_special_tokens": False}).encode()
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}
            with urllib.request.urlopen(urllib.request.Request(f"{server.url}/tokenize", body, headers), timeout=60) as reply:
                seen[item.id] = json.load(reply)["tokens"]
        stop(server)

    monkeypatch.setattr(Server, "stop", ask_tokens)  # the server ends with the job: ask it before
    numbers = [0, 1, 7, 21, 49, 50, 55]
    items = [Item(id=str(n), benchmark="b", nature="benign", prompt=PAIRS[n][0], prefix=PAIRS[n][1]) for n in numbers]
    serve = ServeSpec(weights="test", folder=str(small_model), log=str(tmp_path / "serve.log"), gpus=1, options=("--max-model-len", "512"))
    teacher = TeacherSpec(name="served", base_url="served", model="smollm2-135m", serve=serve, max_in_flight=8, timeout_seconds=600)
    model = tmp_path / "model"
    fetch_model(model, ModelSpec(version=1, name="m", origin="endpoint:served", family="smollm2-think", endpoint="served m"))
    spec = GenerateSpec(
        version=1, checkpoint="m", engine="endpoint", endpoint=EndpointSpec(teacher=teacher, completions=True), batch_tokens=64, seed=0,
        sampling={"e": Sampling(temperature=0.0, top_p=1.0, max_new_tokens=NUM_TOKENS)},
    )  # fmt: skip
    write_jsonl(tmp_path / "e.jsonl", items)
    generate(model, {"e": tmp_path / "e.jsonl"}, tmp_path / "store", tmp_path / "marker.json", spec)
    write_responses(tmp_path / "e.jsonl", tmp_path / "store", model, tmp_path / "r.jsonl", spec, "e")
    rows = read_records(tmp_path / "r.jsonl", Response)
    requests = make_requests(small_model, PAIRS)
    assert [row.num_prompt_tokens for row in rows] == [len(requests[n].prompt_ids) for n in numbers]
    assert [tuple(seen[item.id]) for item in items[-2:]] == [requests[n].prompt_ids for n in numbers[-2:]]
    assert sum(row.text == greedy[n] for row, n in zip(rows, numbers, strict=True)) >= len(numbers) - 1
