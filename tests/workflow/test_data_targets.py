"""What re-runs around training sets: a benchmark's limit touches no training set, strict mode does; export and publish are asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from test_dag import planned, snakemake

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/workflow/tiny.yaml"
TRAINING_SET = {"mix_dataset", "train", "rewrite_chains", "source"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the training set of tests/workflow/tiny.yaml, its card, the contamination report and the export."""
    folder = tmp_path_factory.mktemp("data")
    snakemake(folder, "--configfile", str(TINY), "--", "datasets", "export")
    return folder


@pytest.fixture
def replan(finished: Path, tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Rule -> jobs that a changed config would run again for a target."""

    def plan(changes: dict[str, object], *targets: str) -> dict[str, int]:
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump({"extends": str(TINY)} | changes))
        return dict(planned(snakemake(finished, "-n", "--configfile", str(path), "--", *(targets or ("datasets",)))))

    return plan


def test_outputs(finished: Path) -> None:
    results = finished / "results"
    assert "| advchain | 0 / 0 |" in (results / "contamination.md").read_text()
    assert "| tc | 6 |" in (results / "datasets/advchain.card.md").read_text()
    assert {path.name for path in (results / "export/advchain").iterdir()} == {"README.md", "data", "dataset_info.json", "export.json"}


def test_nothing_runs_twice(replan: Callable[..., dict[str, int]]) -> None:
    assert replan({}, "datasets", "export") == {}


def test_a_limit_changes_nothing_here(replan: Callable[..., dict[str, int]]) -> None:
    assert replan({"evaluation": {"benchmarks": {"xstest": {"limit": 3}, "harmbench": {"limit": 5}}}}) == {}


def test_a_threshold_re_runs_the_report_only(replan: Callable[..., dict[str, int]]) -> None:
    jobs = replan({"contamination": {"tfidf": 0.5}})
    assert {rule for rule in jobs if rule != "total"} == {"contamination", "contamination_table", "dataset_card", "datasets"}


def test_another_benchmark_re_runs_the_report_only(replan: Callable[..., dict[str, int]]) -> None:
    jobs = replan({"contamination": {"also": {"more": {"benchmark": "strongreject"}}}})
    assert jobs["compared_benchmark"] == jobs["contamination"] == 1 and not TRAINING_SET & set(jobs)


def test_strict_mode_mixes_again(replan: Callable[..., dict[str, int]]) -> None:
    jobs = replan({"contamination": {"strict": True}})
    assert jobs["mix_dataset"] == 1 and "rewrite_chains" not in jobs and "source" not in jobs


def test_the_main_target_holds_cards_and_report_but_no_export(replan: Callable[..., dict[str, int]]) -> None:
    jobs = replan({"data": {"size": 7}}, "all")
    assert jobs["dataset_card"] == jobs["contamination_table"] == 1 and not {"export_dataset", "publish"} & set(jobs)


def test_publish_refuses_by_default_in_one_paragraph(finished: Path) -> None:
    result = snakemake(finished, "--configfile", str(TINY), "--", "publish", check=False)
    assert result.returncode == 1 and "publish.repo_id and publish.private not set: nothing is uploaded without both" in result.stdout + result.stderr
    assert not (finished / "results/published.json").exists()


def test_a_name_that_is_an_evaluation_cannot_be_compared_twice(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"extends: {TINY}\ncontamination: {{also: {{xstest: {{}}}}}}\n")
    result = snakemake(tmp_path, "-n", "--configfile", str(config), check=False)
    assert result.returncode == 1 and "contamination.also.xstest: 'xstest' is an evaluation or a source too" in result.stderr


def test_the_controls_are_one_dag(tmp_path: Path) -> None:
    jobs = planned(snakemake(tmp_path, "-n", "--configfile", str(ROOT / "config/controls.yaml")))
    assert jobs["train"] == 11 * 3 + 6 + 4 and jobs["rewrite_chains"] == 4 and jobs["mix_dataset"] == jobs["dataset_card"] == 20
