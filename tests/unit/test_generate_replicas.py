"""Engine processes: layout over GPUs, shares, and what happens when one dies, hangs or has no room (RELIABILITY G1, G3)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from advchain.errors import ConfigError, EngineError
from advchain.generate.engine import Completion, Request, Settings, choose_precision, is_out_of_memory
from advchain.generate.layout import engine_gpus, parallel_size, visible_gpus
from advchain.generate.replicas import answer, share
from advchain.generate.run import generate, write_responses
from advchain.generate.worker import decode, encode
from advchain.io import read_records, write_jsonl
from advchain.models import tensor_parallel_sizes
from advchain.records import Item, Response, derive_seed
from advchain.specs import GenerateSpec, Sampling
from advchain.store import read_store

COMMAND = (sys.executable, str(Path(__file__).resolve().parents[1] / "fake_engine.py"))
SETTINGS = Settings("folder", "transformers", "fp32", 100, batch_tokens=1600)


def requests(count: int = 20, samples: int = 2) -> list[Request]:
    made = []
    for item in range(count):
        sampling = Sampling(max_new_tokens=16 * (1 + item % 3))
        made += [Request(f"{item}.{i}", f"item{item}", i, derive_seed(item, i), tuple(range(item % 7 + 1)), sampling) for i in range(samples)]
    return made


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Tell the fake engine what to do; called without arguments, return the settings of each start so far."""
    starts = tmp_path / "starts"

    def plan(**settings: Any) -> list[dict[str, Any]]:
        if settings:
            monkeypatch.setenv("FAKE_ENGINE", json.dumps({"starts": str(starts)} | settings))
        return [json.loads(line) for line in starts.read_text().splitlines()] if starts.exists() else []

    plan(seconds=0.0)
    return plan


def run(wanted: list[Request], gpus: list[list[str]] | None = None, settings: Settings = SETTINGS, stall: float = 300.0) -> list[Completion]:
    return list(answer(settings, gpus or [[]], wanted, stall, COMMAND))


def table(completions: list[Completion]) -> dict[str, str]:
    assert len({done.request.key for done in completions}) == len(completions)
    return {done.request.key: done.text for done in completions}


@pytest.mark.parametrize(("replicas", "started"), [(3, 3), (8, 8), (64, 10)])
def test_the_layout_changes_no_answer(fake: Callable[..., list[dict[str, Any]]], replicas: int, started: int) -> None:
    wanted = requests(10)
    assert table(run(wanted, [[] for _ in range(replicas)])) == table(run(wanted[::-1])) == table(run(wanted))
    assert len(fake()) == started + 2


def test_more_processes_than_prompts_start_only_what_has_work(fake: Callable[..., list[dict[str, Any]]]) -> None:
    assert len(run(requests(2, samples=3), [[] for _ in range(5)])) == 6
    assert len(fake()) == 2


def test_shares_are_even_longest_first_and_keep_samples_together() -> None:
    shares = share(requests(30, samples=4), 4)
    assert sum(map(len, shares)) == 120 and {len(part) for part in shares} <= {28, 32}
    owner = {request.item_id: number for number, part in enumerate(shares) for request in part}
    assert all(owner[request.item_id] == number for number, part in enumerate(shares) for request in part)
    for part in shares:
        assert [request.length for request in part] == sorted((request.length for request in part), reverse=True)
    assert share(requests(3)[::-1], 2) == share(requests(3), 2), "the order of the requests does not matter"
    assert sorted(request.key for part in share(requests(30), 64) for request in part) == sorted(request.key for request in requests(30))


def test_each_process_sees_its_own_gpus_only(fake: Callable[..., list[dict[str, Any]]]) -> None:
    run(requests(6), [["4", "5"], ["6", "7"]])
    assert sorted(start["gpus"] for start in fake()) == ["4,5", "6,7"]


def test_processes_on_a_cpu_share_its_cores(fake: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    run(requests(6), [[], []])
    assert [start["threads"] for start in fake()] == ["3", "3"]


@pytest.mark.parametrize(("trouble", "told"), [("die", "exit code -11"), ("bug", "a bug"), ("lose", "exit code 0")])
def test_a_process_that_dies_is_started_again_for_the_rest(
    fake: Callable[..., list[dict[str, Any]]], trouble: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = requests()
    whole = table(run(wanted))
    fake(trouble=trouble, after=7, times=2)
    assert table(run(wanted)) == whole
    first, again = fake()[0], fake()[1]
    assert first["batch_tokens"] == again["batch_tokens"] == 1600, "one death is no reason for a smaller setting"
    assert told in caplog.text and "for the 33 rows that are missing" in caplog.text


def test_a_process_that_hangs_is_stopped_and_started_again(fake: Callable[..., list[dict[str, Any]]], caplog: pytest.LogCaptureFixture) -> None:
    fake(trouble="hang", after=5)
    began = time.monotonic()
    assert len(run(requests(), stall=1.5)) == 40
    assert time.monotonic() - began < 20 and "no token for 1.5 s" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(fake()[0]["pid"], 0)


@pytest.mark.parametrize("trouble", ["memory", "load_memory", "killed"])
def test_without_room_the_next_try_is_smaller(fake: Callable[..., list[dict[str, Any]]], trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    fake(trouble=trouble, after=3)
    assert len(run(requests())) == 40
    assert [start["batch_tokens"] for start in fake()] == [1600, 800]
    assert "ran out of memory at evaluation.batch_tokens 1600" in caplog.text and "at evaluation.batch_tokens 800" in caplog.text


def test_after_three_failures_it_stops_and_names_the_next_setting(fake: Callable[..., list[dict[str, Any]]]) -> None:
    fake(trouble="die", after=2, times=9)
    made = []
    with pytest.raises(EngineError) as error:
        made += answer(SETTINGS, [[]], requests(), 300, COMMAND)
    assert len(fake()) == 3 and [start["batch_tokens"] for start in fake()] == [1600, 1600, 800]
    assert "3 times. Finished rows are kept; 34 are missing. Set evaluation.batch_tokens: 400 and run again." in str(error.value)


def test_what_was_finished_before_the_end_stands(fake: Callable[..., list[dict[str, Any]]]) -> None:
    fake(trouble="die", after=2, times=9)
    made = []
    with pytest.raises(EngineError):
        for done in answer(SETTINGS, [[]], requests(), 300, COMMAND):
            made.append(done.request.key)
    assert len(made) == len(set(made)) == 6
    rest = [request for request in requests() if request.key not in made]
    fake(trouble="none")
    assert len(run(rest)) == 34


def test_nothing_smaller_is_left(fake: Callable[..., list[dict[str, Any]]]) -> None:
    fake(trouble="memory", times=9)
    with pytest.raises(EngineError, match=r"out of memory at evaluation.batch_tokens 100 .* 1 times.* lower max_new_tokens"):
        run(requests(), settings=Settings("folder", "transformers", "fp32", 100, batch_tokens=100))


def test_a_model_that_is_none_is_not_tried_again(fake: Callable[..., list[dict[str, Any]]]) -> None:
    fake(trouble="load_fails", times=9)
    with pytest.raises(EngineError, match=r"^the model is no model$"):
        run(requests(), [[], []])
    assert len(fake()) <= 2


def test_one_process_in_trouble_does_not_disturb_the_other(fake: Callable[..., list[dict[str, Any]]]) -> None:
    whole = table(run(requests()))
    fake(trouble="die", after=1, times=2)
    assert table(run(requests(), [[], []])) == whole


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_generate_replicas import *\n"
        "for done in answer(SETTINGS, [[], []], requests(), 300, COMMAND): print(done.request.key, flush=True)"
    )
    plan = json.dumps({"starts": str(tmp_path / "starts"), "trouble": "hang", "after": 2, "times": 9})
    parent = subprocess.Popen(
        [sys.executable, "-c", code, "x", str(Path(__file__).parent)], env=os.environ | {"FAKE_ENGINE": plan}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    for _ in range(4):
        assert parent.stdout.readline().strip()
    pids = [json.loads(line)["pid"] for line in (tmp_path / "starts").read_text().splitlines()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end, "an engine process outlived the job"


def test_a_request_survives_the_way_to_its_process() -> None:
    for request in requests(3):
        assert decode(json.loads(json.dumps(encode(request)))) == request


def test_gpus_are_those_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("gpus", "size", "replicas", "groups"),
    [("01234567", 1, None, "0 1 2 3 4 5 6 7"), ("01234567", 2, None, "01 23 45 67"), ("0123", 1, 2, "0 1"), ("012", 2, None, "01"), ("01", 2, 8, "01")],
)
def test_gpus_are_dealt_in_groups(gpus: str, size: int, replicas: int | None, groups: str) -> None:
    assert engine_gpus(list(gpus), size, replicas) == [list(group) for group in groups.split()]


def test_a_cpu_has_one_engine_unless_told() -> None:
    assert engine_gpus([], 1, None) == [[]] and engine_gpus([], 1, 2) == [[], []]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """8 GiB of weights, sparse on disk; 12 heads, 2 of them for keys and values."""
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 12, "num_key_value_heads": 2}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(8 << 30)
    return tmp_path


@pytest.mark.parametrize(("memory", "size"), [(24, 1), (16, 1), (12, 2), (None, 1), (6, 4)])
def test_a_model_is_split_only_where_it_does_not_fit(model: Path, memory: int | None, size: int) -> None:
    assert parallel_size(model, 4, None, memory << 30 if memory else None) == size


def test_a_split_fits_the_heads(model: Path) -> None:
    assert tensor_parallel_sizes(model, 8) == [1, 2, 4, 6]
    assert parallel_size(model, 4, 2, 80 << 30) == 2 and parallel_size(model, 1, 2, 80 << 30) == 1
    with pytest.raises(ConfigError, match=r"tensor_parallel 3 .* can be split by \[1, 2, 4\]"):
        parallel_size(model, 4, 3, 80 << 30)
    with pytest.raises(ConfigError, match=r"8.0 GiB of weights do not fit on 2 GPUs of 4 GiB"):
        parallel_size(model, 2, None, 4 << 30)


def test_settings_shrink_to_one_row() -> None:
    sizes, settings = [], Settings("f", "vllm", "bf16", 4096)
    while (smaller := settings.smaller()) is not None:
        settings = smaller
        sizes.append(settings.max_sequences)
    assert sizes == [128, 64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize(
    "text", ["CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory: you tried", "No available memory for the cache"]
)
def test_no_room_is_recognised(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text)) and not is_out_of_memory(RuntimeError("device-side assert"))


def test_precision_follows_the_machine() -> None:
    assert choose_precision("auto", "vllm", gpu=True) == "bf16" and choose_precision("auto", "vllm", gpu=False) == "fp32"
    assert choose_precision("fp32", "vllm", gpu=True) == "fp32" and choose_precision("bf16", "endpoint", gpu=False) == "served"


def test_a_run_goes_on_where_the_engine_left_it(
    fake: Callable[..., list[dict[str, Any]]], small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1 through the whole stage: rows finished before three deaths are in the store, the next run asks for the rest only, the table is that of a calm run."""
    monkeypatch.setattr("advchain.generate.run.answer", partial(answer, command=COMMAND))
    prompts = tmp_path / "e.jsonl"
    write_jsonl(prompts, [Item(id=f"i{n}", benchmark="b", nature="benign", prompt=f"Count to {n}.") for n in range(10)])
    sampling = {"e": Sampling(max_new_tokens=8, num_samples=2)}
    spec = GenerateSpec(version=1, checkpoint="c", engine="transformers", batch_tokens=16384, precision="fp32", seed=1, sampling=sampling)

    def table(name: str) -> list[Response]:
        generate(small_model, {"e": prompts}, tmp_path / name, tmp_path / "marker.json", spec)
        write_responses(prompts, tmp_path / name, small_model, tmp_path / "r.jsonl", spec, "e")
        return read_records(tmp_path / "r.jsonl", Response)

    calm = table("calm")
    fake(trouble="die", after=2, times=99)
    with pytest.raises(EngineError, match="14 are missing"):
        table("troubled")
    assert len(read_store(tmp_path / "troubled")) == 6
    fake(seconds=0.0)
    assert table("troubled") == calm
    assert json.loads((tmp_path / "marker.json").read_text())["counts"]["generated"] == 14
