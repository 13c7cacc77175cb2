"""Held-out probabilities of the guard: every row is scored by a head that saw neither its question nor a model of its family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from advchain.judges.guard.features import Floats, read_pair
from advchain.judges.guard.labelled import XSTEST_MODELS, Labelled
from advchain.judges.guard.training import FORM_SHARES, PENALTIES, Design, Mask, factor, fit_predict, light, make_design, train_head
from advchain.records import derive_seed

QUESTION_FOLDS, MODEL_FOLDS, INNER_FOLDS, XSTEST_FOLDS = 4, 4, 2, 5
Choice = tuple[float, float]  # form share, penalty


def family(model: str) -> str:
    """Return the family of a model's name: sizes and versions of one model are not unseen models of each other.

    >>> family("llama2_7b") == family("llama2_13b")
    True
    """
    return model.replace("-", "_").split("_")[0]


def question_fold(row: Labelled, folds: int, salt: str = "") -> int:
    """Return a row's fold by its question; all answers to one question are in one fold."""
    return derive_seed("guard fold", salt, row.source, row.question) % folds


def model_folds(rows: Sequence[Labelled], folds: int) -> dict[str, int]:
    """Return family -> fold, largest family first into the emptiest fold."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[family(row.model)] = sizes.get(family(row.model), 0) + 1
    load, placed = [0] * folds, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        placed[name] = load.index(min(load))
        load[placed[name]] += sizes[name]
    return placed


def harmbench_cells(design: Design) -> Iterator[tuple[Mask, Mask]]:
    """Yield (train, test) masks of HarmBench rows; every row is tested once, against rows of other questions and other families only."""
    mine = design.where("harmbench")
    families = model_folds([row for row in design.rows if row.source == "harmbench"], MODEL_FOLDS)
    question = np.array([question_fold(row, QUESTION_FOLDS) if row.source == "harmbench" else -1 for row in design.rows])
    model = np.array([families[family(row.model)] if row.source == "harmbench" else -1 for row in design.rows])
    for i in range(QUESTION_FOLDS):
        for j in range(MODEL_FOLDS):
            yield mine & (question != i) & (model != j), mine & (question == i) & (model == j)


def nested_harm(design: Design, auxiliary: bool = True) -> tuple[Floats, dict[Choice, int]]:
    """Return held-out P(unsafe) of HarmBench rows (nan elsewhere) and how often each setting was chosen by the inner folds.

    Args:
        auxiliary: GPTFuzz rows help to train. Its file names no models: without them, no model of a test row can have been seen.
    """
    spaces = {share: light(factor(design, share)) for share in FORM_SHARES}
    extra = design.where("gptfuzz") if auxiliary else np.zeros(len(design.rows), dtype=bool)
    out, chosen = np.full(len(design.rows), np.nan), dict.fromkeys(((s, p) for s in FORM_SHARES for p in PENALTIES), 0)
    for train, test in harmbench_cells(design):
        best = max(chosen, key=lambda choice: _inner_score(design, spaces[choice[0]], train, extra, choice[1]))
        chosen[best] += 1
        out[test] = fit_predict(design, spaces[best[0]], "harm", train | extra, best[1])[test]
    return out, chosen


def _inner_score(design: Design, space: npt.NDArray[np.float32], train: Mask, extra: Mask, penalty: float) -> float:
    """Mean log likelihood of training rows, each under a head that did not see its question."""
    fold = np.array([question_fold(row, INNER_FOLDS, "inner") for row in design.rows])
    total = 0.0
    for i in range(INNER_FOLDS):
        test = train & (fold == i)
        found = np.clip(fit_predict(design, space, "harm", (train & (fold != i)) | extra, penalty)[test], 1e-6, 1 - 1e-6)
        total += float(np.log(np.where(design.harmful[test] == 1, found, 1 - found)).sum())
    return total


def across_sets(design: Design, space: npt.NDArray[np.float32], kind: str, left_out: str) -> Floats:
    """Return P of the rows of one set under a head trained on all other sets (nan elsewhere)."""
    test = design.where(left_out)
    return np.where(test, fit_predict(design, space, kind, ~test), np.nan)


def all_of_gptfuzz(rows: Sequence[Labelled]) -> dict[str, float]:
    """Return row id -> P(unsafe) of every GPTFuzz answer, repeats included, under a head that saw none of them, not even for the scale of its measures: the
    same rows that the fixed rules are measured on.
    """
    head = train_head(make_design([row for row in rows if row.source != "gptfuzz"]).restrict("harmbench"), "harm")
    return {row.id: head.score(*read_pair(row.request, row.answer)) for row in rows if row.source == "gptfuzz"}


def held_out_xstest(design: Design, space: npt.NDArray[np.float32]) -> Floats:
    """Return held-out P(refused) of XSTest rows: neither the prompt nor any answer of the row's model was seen."""
    out, mine = np.full(len(design.rows), np.nan), design.where("xstest")
    model = np.array([row.model for row in design.rows])
    fold = np.array([question_fold(row, XSTEST_FOLDS) for row in design.rows])
    for name in XSTEST_MODELS:
        for i in range(XSTEST_FOLDS):
            test = mine & (model == name) & (fold == i)
            if test.any():
                out[test] = fit_predict(design, space, "refusal", (mine & (model != name) & (fold != i)) | ~mine)[test]
    return out


def calibration_slope(labels: Floats, probabilities: Floats) -> float:
    """Return the factor on the logit that makes held-out probabilities most likely; 0.5 stays where it is, so no verdict changes."""
    logits = np.log(probabilities / (1 - probabilities))
    grid = np.linspace(0.2, 3.0, 141)
    losses = [float(np.logaddexp(0, np.where(labels == 1, -slope * logits, slope * logits)).sum()) for slope in grid]
    return round(float(grid[int(np.argmin(losses))]), 3)
