"""Whole trainings of a tiny model through DeepSpeed, in this process."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import ROOT, make_model, make_samples, make_spec, read_log, write_dataset

from advchain import chat
from advchain.errors import DataError, EngineError, StorageError
from advchain.io import write_jsonl
from advchain.models import check_weights, load_tokenizer, write_model_card
from advchain.records import Step
from advchain.train import loop
from advchain.train.encode import encode_sample
from advchain.train.loss import SupervisedLoss
from advchain.train.resume import WhenChanged
from advchain.train.sft import train

PROFILES = ROOT / "config/deepspeed"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "rows.jsonl", 13)


def run(dataset: Path, base: Path, folder: Path, profile: str = "cpu", when_changed: WhenChanged = "refuse", **changes: object) -> list[dict]:
    train(dataset, base, folder / "out", folder / "work", make_spec(**changes), PROFILES / f"{profile}.json", threads=1, when_changed=when_changed)
    return read_log(folder / "out")


def test_micro_batches_do_not_change_the_loss(dataset: Path, base: Path, tmp_path: Path) -> None:
    logs = {tokens: run(dataset, base, tmp_path / str(tokens), micro_batch_tokens=tokens) for tokens in (16, 600, 10_000)}
    assert [row["supervised_tokens"] > 0 and row["epoch"] for row in logs[16]] == [1, 1, 1, 2, 2, 2]
    for one, two, three in zip(*logs.values(), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-6) and three["loss"] == pytest.approx(one["loss"], abs=1e-6)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)


def test_bf16_learns_four_rows_and_writes_a_whole_model(base: Path, tmp_path: Path) -> None:
    four = write_dataset(tmp_path / "four.jsonl", 4)
    log = run(four, base, tmp_path, precision="bf16", batch_size=4, learning_rate=1e-2, epochs=3, scheduler="constant", gradient_checkpointing=True)
    assert log[2]["loss"] < log[1]["loss"] < log[0]["loss"]
    card = check_weights(tmp_path / "out")
    assert (card.name, card.base, card.family) == ("tiny/advchain/seed1", "tiny", "generic")
    assert card.manifest["counts"]["rows"] == 4 and card.manifest["rejects"]["total"] == 0
    weights = load_file(tmp_path / "out/model.safetensors")
    assert "lm_head.weight" not in weights and str(weights["model.embed_tokens.weight"].dtype) == "torch.bfloat16"
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "out/tokenizer.json").is_file() and (tmp_path / "out/generation_config.json").is_file()


def test_an_untied_head_is_written(dataset: Path, tmp_path: Path) -> None:
    run(dataset, make_model(tmp_path / "untied", tied=False), tmp_path, epochs=1)
    assert "lm_head.weight" in load_file(tmp_path / "out/model.safetensors")


def test_the_second_nan_loss_stops_and_names_the_row(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tied=False)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][load_tokenizer(base).token_to_id("Z")] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    write_model_card(base, name="tiny", family="generic", base=None, spec={}, manifest={})
    samples = make_samples(6)
    samples[4] = samples[4].model_copy(update={"prompt": "Z"})
    write_jsonl(tmp_path / "rows.jsonl", samples)
    with pytest.raises(EngineError, match=r"the loss of step [34] of 4 is NaN or infinite \(rows: row-4\), and a step was left out before"):
        run(tmp_path / "rows.jsonl", base, tmp_path, micro_batch_tokens=16, batch_size=3, epochs=2)
    assert not (tmp_path / "out").exists()
    dumps = [json.loads(path.read_text()) for path in sorted((tmp_path / "work").glob("bad-step-*.json"))]
    assert [(dump["what"], dump["rows"]) for dump in dumps] == [("loss", ["row-4"])] * 2
    assert "row-4" in [row for rank in dumps[0]["packs_of_processes"] for pack in rank for row in pack]


def test_a_gradient_that_explodes_stops_and_keeps_the_last_good_state(dataset: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the (loss|gradient) of step 3 of 6 is NaN or infinite \(rows: row-") as caught:
        run(dataset, base, tmp_path, learning_rate=1e30, scheduler="constant", warmup_ratio=0.0, save_every_steps=1)
    assert "Nothing was written" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "work/ckpt").glob("step-*")] == ["step-000001"]


class Poison(torch.autograd.Function):
    """A loss that is fine, with a gradient that is not."""

    @staticmethod
    def forward(ctx, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf


@pytest.mark.parametrize("profile", ["cpu", "zero2", "zero3"])
@pytest.mark.parametrize(("precision", "what"), [("fp32", "loss"), ("bf16", "gradient"), ("bf16", "loss")])
def test_one_bad_step_is_left_out(dataset: Path, base: Path, tmp_path: Path, profile: str, precision: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows in each step: after step 2 was left out, step 3 has the weights, so the loss, that step 2 has otherwise."""
    settings = {"precision": precision, "batch_size": 13, "micro_batch_tokens": 10**4, "epochs": 4, "warmup_ratio": 0.0, "save_every_steps": 1}
    whole = run(dataset, base, tmp_path / "whole", profile, **settings)
    forward, calls = SupervisedLoss.forward, iter(range(10))

    def broken(self, *inputs: object) -> torch.Tensor:
        loss = forward(self, *inputs)
        if next(calls) != 1:
            return loss
        return Poison.apply(loss) if what == "gradient" else loss * torch.nan

    monkeypatch.setattr(SupervisedLoss, "forward", broken)
    log = run(dataset, base, tmp_path / "broken", profile, **settings)
    assert [row["loss"] is None for row in log] == [False, True, False, False]
    assert log[1]["grad_norm"] is None and log[2]["loss"] == whole[1]["loss"] and log[3]["loss"] < log[2]["loss"]
    assert check_weights(tmp_path / "broken/out").manifest["counts"]["skipped_steps"] == 1


def test_a_nan_weight_is_never_saved(dataset: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop.run_step

    def spoil(training: loop.Training, plan: object) -> dict:
        row = step(training, plan)
        if row["step"] == 2:
            next(training.model.parameters()).data.view(-1)[7] = torch.nan
        return row

    monkeypatch.setattr(loop, "run_step", spoil)
    with pytest.raises(EngineError, match=r"after step 2 a weight is NaN or infinite\. It was not saved"):
        run(dataset, base, tmp_path, save_every_steps=1)
    assert [path.name for path in (tmp_path / "work/ckpt").glob("step-*")] == ["step-000001"]


def test_rows_of_one_word_and_of_8192_tokens_train_together(base: Path, tmp_path: Path) -> None:
    """The longest row the paper allows is a pack of its own, next to the shortest one there is (RELIABILITY C10)."""
    short, long = (sample.model_copy(update={"id": name}) for sample, name in zip(make_samples(2), ("short", "long"), strict=True))
    short = short.model_copy(update={"prompt": "", "steps": (Step(text="a"),), "answer": ""})
    spare = 8192 - len(encode_sample(long, chat.family("generic"), load_tokenizer(base)))
    write_jsonl(tmp_path / "rows.jsonl", [short, long.model_copy(update={"answer": long.answer + "x" * spare})])
    (row,) = run(tmp_path / "rows.jsonl", base, tmp_path, batch_size=2, epochs=1, max_length=8192, micro_batch_tokens=600)
    assert row["tokens"] > 8192 and 0 < row["loss"] < 7


def test_compiled_layers_learn_the_same(dataset: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is taken and run; code generation, which takes a compiler and a minute, is left out."""
    plain = run(dataset, base, tmp_path / "plain", epochs=1)
    compiled, compile_module, count = torch._dynamo.utils.counters, torch.nn.Module.compile, Counter()
    compiled.clear()

    def compile_eager(self: torch.nn.Module) -> None:
        count["layers"] += 1
        compile_module(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eager)
    log = run(dataset, base, tmp_path / "compiled", epochs=1, compile="on", micro_batch_tokens=10_000)
    assert count["layers"] == 2 and compiled["stats"]["unique_graphs"] >= 1
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in plain], abs=1e-5)


def test_a_sample_and_its_mask_are_shown_on_request_only(
    dataset: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO):
        monkeypatch.delenv("ADVCHAIN_SHOW_TEXT", raising=False)
        run(dataset, base, tmp_path / "hidden", epochs=1, mask_errors=True)
        assert "sample row-0: " in caplog.text and "think" not in caplog.text
        monkeypatch.setenv("ADVCHAIN_SHOW_TEXT", "1")
        run(dataset, base, tmp_path / "shown", epochs=1, mask_errors=True)
    shown = next(record.message for record in caplog.records if "reads:" in record.message).splitlines()[1:]
    assert [line[0] for line in shown] == [".", "+", ".", "+"]  # prompt, first step, error, the rest
    assert shown[0].startswith(". '<|im_start|>user") and shown[1].startswith("+ '<think>") and shown[3].endswith("<|im_end|>'")


def test_masked_errors_train_on_fewer_tokens(dataset: Path, base: Path, tmp_path: Path) -> None:
    full, masked = (run(dataset, base, tmp_path / str(mask), mask_errors=mask, epochs=1) for mask in (False, True))
    assert [row["tokens"] for row in full] == [row["tokens"] for row in masked]
    assert all(two["supervised_tokens"] < one["supervised_tokens"] for one, two in zip(full, masked, strict=True))


def test_nothing_to_train_on(dataset: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too_long.*13"):
        run(dataset, base, tmp_path, max_length=20)


def test_a_damaged_base_is_refused(dataset: Path, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    with open(base / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(StorageError, match=r"model.safetensors has another sha256"):
        run(dataset, base, tmp_path)
