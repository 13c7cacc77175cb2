"""Token ids are made once per setting, verified when used again, and the same whoever reads them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tiny_training import make_model, make_spec, write_dataset

from advchain import chat
from advchain.errors import DataError, StorageError
from advchain.manifests import Rejects
from advchain.train import tokenised
from advchain.train.encode import Encoded

FAMILY = chat.family("generic")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "rows.jsonl", 6)


def made(dataset: Path, base: Path, work: Path, **changes: object) -> Path:
    spec = make_spec(**changes)
    path = tokenised.tokenised_path(dataset, base, work, spec, FAMILY)
    tokenised.make(path, dataset, base, spec, FAMILY)
    return path


@pytest.mark.parametrize("mask_errors", [False, True])
def test_what_is_read_is_what_was_encoded(dataset: Path, base: Path, tmp_path: Path, mask_errors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from advchain.io import read_records
    from advchain.models import load_tokenizer
    from advchain.records import Sample

    path = made(dataset, base, tmp_path / "work", mask_errors=mask_errors, max_length=250)
    rows, rejects = tokenised.read(path)
    expected, rejected = tokenised.encode_samples(read_records(dataset, Sample), FAMILY, load_tokenizer(base), max_length=250, mask_errors=mask_errors)
    assert rows == expected and rejects.rows == rejected.rows and 0 < len(rows) < 6
    monkeypatch.setattr(tokenised, "encode_samples", None)  # a second run does not tokenise
    assert made(dataset, base, tmp_path / "work", mask_errors=mask_errors, max_length=250) == path


def test_another_setting_is_another_file_and_the_old_one_goes(dataset: Path, base: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = made(dataset, base, work)
    assert made(dataset, base, work, learning_rate=1e-9, seed=7, batch_size=2) == first
    for changes in ({"max_length": 999}, {"mask_errors": True}):
        other = made(dataset, base, work, **changes)
        assert other != first and list(work.iterdir()) == [other]
    write_dataset(dataset, 7)
    assert made(dataset, base, work) != first


@pytest.mark.parametrize("damage", ["flip", "cut", "rename"])
def test_a_damaged_file_is_made_again_by_the_first_and_refused_by_the_others(
    dataset: Path, base: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(dataset, base, tmp_path / "work")
    whole = path.read_bytes()
    data = bytearray(whole)
    data[-20] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": whole[: len(whole) // 2], "rename": whole.replace(path.stem.encode(), b"tokenised-0")}[damage])
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match="cannot be read back whole"):
        tokenised.read(path)
    assert "damaged" in caplog.text
    made(dataset, base, tmp_path / "work")
    assert path.read_bytes() == whole


def test_held_out_rows_are_the_same_for_every_method_and_recorded() -> None:
    rows = [Encoded(f"row-{number}", [1, 2], [False, True]) for number in range(20)]
    rejects = Rejects()
    kept, held = tokenised.hold_out(rows, rejects, 5, seed=1)
    assert (len(kept), len(held)) == (15, 5) and rejects.counts() == {"held_out": 5} and {row["id"] for row in rejects.rows} == {row.id for row in held}
    assert [row.id for row in tokenised.hold_out(rows[::-1], Rejects(), 5, seed=1)[1]] == [row.id for row in held][::-1]
    assert tokenised.hold_out(rows, Rejects(), 5, seed=2)[1] != held
    assert tokenised.hold_out(rows, Rejects(), 0, seed=1) == (rows, [])
    with pytest.raises(DataError, match=r"holdout_rows is 20, but there are only 20 rows"):
        tokenised.hold_out(rows, Rejects(), 20, seed=1)
