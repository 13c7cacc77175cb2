"""`clean`: a listing first, only what is named, links removed and not followed, bought answers only by their own name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from advchain.errors import ConfigError, StorageError
from advchain.operations.clean import STAGES, delete, doomed


@pytest.fixture
def results(finished_small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_small, tmp_path / "results"))


def names(results: Path) -> set[str]:
    return {path.relative_to(results).as_posix() for path in results.iterdir()}


def test_every_file_of_a_run_belongs_to_a_stage(results: Path) -> None:
    delete(doomed(results, ["all"]))
    assert names(results) == {".work"}
    assert {path.name for path in (results / ".work").iterdir()} == {"teacher"}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("work", "answers")])
def test_a_stage_takes_its_own_and_no_more(results: Path, stage: str) -> None:
    before = names(results)
    delete(doomed(results, [stage]))
    assert before - names(results) == {name for name in STAGES[stage] if name in before}


def test_listing_deletes_nothing_and_counts(results: Path) -> None:
    before = {path for path in results.rglob("*")}
    found = {item.path.name: item for item in doomed(results, ["train"])}
    folder = results / "checkpoints"
    assert found["checkpoints"].num_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert {path for path in results.rglob("*")} == before


def test_bought_answers_go_only_by_name(results: Path) -> None:
    store = results / ".work/teacher/tc.store"
    delete(doomed(results, [stage for stage in [*STAGES, "all"] if stage != "answers"]))
    assert store.exists()
    delete(doomed(results, ["answers"]))
    assert not store.exists()


def test_a_link_is_removed_and_what_it_leads_to_stays(results: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other_disk"
    (results / "models").rename(elsewhere)
    (results / "models").symlink_to(elsewhere)
    (results / "checkpoints/linked").symlink_to(elsewhere)
    items = doomed(results, ["models", "train"])
    assert next(item for item in items if item.path.name == "models").num_bytes == 0
    delete(items)
    assert not (results / "models").is_symlink() and not (results / "checkpoints").exists()
    assert (elsewhere / "smollm2-135m/model.json").is_file()


def test_what_is_no_results_folder_is_refused(tmp_path: Path, results: Path) -> None:
    (tmp_path / "home/thesis").mkdir(parents=True)
    with pytest.raises(StorageError, match="does not look like a results folder"):
        doomed(tmp_path / "home", ["all"])
    with pytest.raises(StorageError, match="there is no folder"):
        doomed(tmp_path / "none", ["all"])
    with pytest.raises(ConfigError, match=r"unknown stage 'jugde'.*Did you mean 'judge'"):
        doomed(results, ["jugde"])


def test_files_of_others_in_a_results_folder_stay(results: Path) -> None:
    (results / "my_notes.txt").write_text("mine")
    delete(doomed(results, ["all"]))
    assert (results / "my_notes.txt").exists()


def test_a_folder_with_a_lock_is_refused(results: Path) -> None:
    locks = results.parent / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("")
    with pytest.raises(StorageError, match="a run holds"):
        doomed(results, ["report"])
