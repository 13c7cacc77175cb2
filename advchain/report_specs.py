"""What the plan hands to scores and report: which checkpoints and evaluations there are, and how they are named and placed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advchain.records import Nature
from advchain.specs import Spec

TableName = Literal["safety", "hijack", "attacks", "over_refusal", "reasoning"]


class EvaluationInfo(Spec):
    """How the report names and places one evaluation. `paper` is its column in paper_numbers.yaml, None where the paper has none."""

    title: str
    table: TableName
    nature: Nature
    paper: str | None = None
    judges: dict[str, Literal["harm", "refusal", "correctness", "steps"]] = Field(description="judge -> what it measures; the first of a kind is primary")
    margin: float | None = Field(
        default=None, description="0..1; equivalence margin of pass@1 (RELIABILITY 7b: 0.02 for MATH, 0.05 for AIME and LiveCodeBench)"
    )


class CheckpointInfo(Spec):
    """One column of the grid: a model after one method, one run (seed, learning rate)."""

    model: str
    method: str
    run: str
    model_title: str
    method_title: str
    paper_model: str | None = None
    paper_method: str | None = None
    recipe: str | None = None
    num_tc: int | None = None
    num_hc: int | None = None
    seed: int | None = None
    learning_rate: float | None = None
    evaluations: tuple[str, ...] = Field(default=(), description="evaluations of this checkpoint; empty: all")


class ScoreSpec(Spec):
    """Which verdict files there are and what each judge measures; which pairs of methods are compared on the same items."""

    version: int
    evaluations: dict[str, EvaluationInfo]
    checkpoints: tuple[CheckpointInfo, ...]
    contrasts: tuple[tuple[str, str], ...] = tuple(
        ("advchain", other) for other in ("base", "star1", "no_injection", "filler", "correction_only", "advchain_masked")
    )  # declared before any run; what a grid does not hold is left out
    bootstrap_draws: int = 10_000
    seed: int = 0


class ReportSpec(Spec):
    """Everything tables, figures and report need beside the scores."""

    version: int
    name: str
    evaluations: dict[str, EvaluationInfo]
    checkpoints: tuple[CheckpointInfo, ...]
    judge_titles: dict[str, str]
    judge_modules: dict[str, str] = Field(default={}, description="judge -> file under advchain/judges; the judge's own name if left out")
    altered_judges: tuple[str, ...] = Field(default=(), description="judges whose options are not their file's: figures of the file are not theirs")
    agreement: tuple[dict[str, Any], ...] = Field(default=(), description="rows of a judge report on the user's own labels, read where the report is built")
    deviations: tuple[str, ...] = ()
