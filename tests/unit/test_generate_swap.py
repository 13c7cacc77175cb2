"""RELIABILITY G2: weights are never swapped under a living engine. A process reads one folder, once; other weights are another process and other keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import make_model

from advchain.errors import StorageError
from advchain.generate.engine import Completion, Engine, Request, Settings, load_engine
from advchain.generate.replicas import answer
from advchain.generate.run import generate, write_responses
from advchain.generate.worker import decode, encode
from advchain.io import read_records, write_jsonl
from advchain.models import write_model_card
from advchain.records import Item, Response
from advchain.specs import GenerateSpec, Sampling
from advchain.store import read_store

NUM_PROMPTS = 50
SPEC = GenerateSpec(
    version=1, checkpoint="c", engine="transformers", batch_tokens=16384, precision="fp32", seed=1, sampling={"e": Sampling(temperature=0, max_new_tokens=12)}
)  # fmt: skip


def swap_weights(folder: Path, card: bool = True) -> None:
    """Put other weights into a checkpoint's folder, as a training that is run again does; without a card, as a careless hand does."""
    path, generator = folder / "model.safetensors", torch.Generator().manual_seed(7)
    save_file({name: value + torch.randn(value.shape, generator=generator) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    if card:
        write_model_card(folder, name="tiny", family="generic", base=None, spec={}, manifest={})


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Answer fifty prompts with the model that is in the folder now, keeping answers in the store of that name; return item -> text."""
    prompts = tmp_path / "e.jsonl"
    write_jsonl(prompts, [Item(id=f"i{n}", benchmark="b", nature="benign", prompt=f"Say {n} things about {n * n}.") for n in range(NUM_PROMPTS)])

    def run(folder: Path, store: str) -> dict[str, str]:
        generate(folder, {"e": prompts}, tmp_path / store, tmp_path / "marker.json", SPEC)
        write_responses(prompts, tmp_path / store, folder, tmp_path / "r.jsonl", SPEC, "e")
        return {row.item_id: row.text for row in read_records(tmp_path / "r.jsonl", Response)}

    return run


def in_this_process(settings: Settings, gpus: object, requests: Sequence[Request], stall: float) -> Iterator[Completion]:
    """The real engine without a process around it, to save its start."""
    torch.set_num_threads(1)
    for done in load_engine(settings).generate(requests):
        yield from done


def test_swapped_weights_answer_as_a_fresh_engine_does(ask: Callable[..., dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stale answers of the old weights are planted: same folder, same store, same prompts. All fifty are made anew, as by an engine that never saw them."""
    monkeypatch.setattr("advchain.generate.run.answer", in_this_process)
    folder = make_model(tmp_path / "model")
    old = ask(folder, "store")
    swap_weights(folder)
    new = ask(folder, "store")
    assert json.loads((tmp_path / "marker.json").read_text())["counts"]["generated"] == NUM_PROMPTS
    assert new == ask(folder, "fresh") and sum(new[item] != old[item] for item in old) >= 45, "the two models must be told apart by their text"
    assert len(read_store(tmp_path / "store")) == 2 * NUM_PROMPTS
    assert ask(folder, "store") == new, "the store gives back the answers of the weights that are there"


def test_weights_exchanged_behind_the_card_are_refused(ask: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    swap_weights(folder, card=False)
    with pytest.raises(StorageError, match=r"model\.safetensors has another sha256"):
        ask(folder, "store")
    assert not (tmp_path / "store").exists()


def test_every_load_is_a_process_of_its_own(ask: Callable[..., dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix cache lives in a process's memory; two checkpoints in one job's Python still get two processes, and the first is gone before the second is."""
    command = (sys.executable, str(Path(__file__).resolve().parents[1] / "fake_engine.py"))
    monkeypatch.setattr("advchain.generate.run.answer", partial(answer, command=command))
    monkeypatch.setenv("FAKE_ENGINE", json.dumps({"starts": str(tmp_path / "starts")}))
    folder = make_model(tmp_path / "model")
    for _ in range(2):
        ask(folder, "store")
        pids = [json.loads(line)["pid"] for line in (tmp_path / "starts").read_text().splitlines()]
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        swap_weights(folder)
    assert len(set(pids)) == len(pids) == 2


def test_nothing_tells_a_living_engine_of_other_weights() -> None:
    """What reaches an engine after its load is requests; they and its protocol have no place for a model."""
    assert not {"model", "folder", "weights", "checkpoint", "lora"} & {*Request.__dataclass_fields__, *Completion._fields}
    assert {name for name in vars(Engine) if not name.startswith("_")} == {"generate", "close"}
    request: Any = Request("k", "i", 0, 1, (1, 2), Sampling())
    with pytest.raises(TypeError, match="folder"):
        decode(encode(request) | {"folder": "other"})
