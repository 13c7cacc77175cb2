"""Whole trainings of a tiny model through DeepSpeed, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import ROOT, make_model, make_samples, make_spec, read_log, write_dataset

from advchain.errors import DataError, EngineError, StorageError
from advchain.io import write_jsonl
from advchain.models import check_weights, load_tokenizer, write_model_card
from advchain.train.sft import train

PROFILE = ROOT / "config/deepspeed/cpu.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "rows.jsonl", 13)


def run(dataset: Path, base: Path, folder: Path, **changes: object) -> list[dict]:
    train(dataset, base, folder / "out", folder / "work", make_spec(**changes), PROFILE, threads=1)
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


def test_a_nan_loss_stops_before_the_optimizer_and_names_the_row(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tied=False)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][load_tokenizer(base).token_to_id("Z")] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    write_model_card(base, name="tiny", family="generic", base=None, spec={}, manifest={})
    samples = make_samples(6)
    samples[4] = samples[4].model_copy(update={"prompt": "Z"})
    write_jsonl(tmp_path / "rows.jsonl", samples)
    with pytest.raises(EngineError, match=r"the loss of step [12] of 2 is NaN or infinite \(rows: row-4\)"):
        run(tmp_path / "rows.jsonl", base, tmp_path, micro_batch_tokens=16, batch_size=3, epochs=1)
    assert not (tmp_path / "out").exists()


def test_a_gradient_that_explodes_stops_and_keeps_the_last_state(dataset: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the gradient of step 2 of 6 is NaN or infinite \(rows: row-") as caught:
        run(dataset, base, tmp_path, learning_rate=1e30, scheduler="constant", warmup_ratio=0.0, save_every_steps=1)
    assert "Nothing was written" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "work/ckpt").glob("step-*")] == ["step-000001"]


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
