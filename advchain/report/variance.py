"""Where the scatter of a rate comes from: training seeds, prompts, prompts that seeds treat differently, decoding (METHOD 7.1).

A random-effects analysis of the items that were judged under every seed (classical moment estimates of a two-way layout; a negative one is 0). With one
sample per prompt, decoding cannot be told from seed x prompt and the two stand together. Each component is given as its part of the standard error of
the mean over seeds, prompts and samples: what more seeds, more prompts or more samples would shrink.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from advchain.records import Record
from advchain.report.cells import DIGITS, Cell, Key
from advchain.report.frames import per_item
from advchain.report.grid import Group, asked, groups, judges_of
from advchain.report_specs import ScoreSpec

Floats = npt.NDArray[np.float64]


class Components(NamedTuple):
    """Variances of one outcome: of a seed, of a prompt, of the two together (with decoding where that is nan), of one more sample."""

    seed: float
    prompt: float
    both: float
    decoding: float


class Variance(Record):
    """One primary measure of one group with several seeds; rates and standard errors in 0..1."""

    model: str
    method: str
    run: str
    benchmark: str
    metric: str
    judge: str
    num_seeds: int
    num_items: int
    num_samples: float
    value: float
    sd_over_seeds: float
    se_seeds: float
    se_prompts: float
    se_both: float
    se_decoding: float | None
    se_total: float


VARIANCE_COLUMNS = tuple(Variance.model_fields)


def variance_path(scores: Path) -> Path:
    """scores.csv -> variance.csv in the same folder."""
    return Path(scores).with_name("variance.csv")


def variances(spec: ScoreSpec, cells: Mapping[Key, Cell]) -> Iterator[Variance]:
    """Yield every primary rate of every group with several seeds."""
    for group in (group for group in groups(spec.checkpoints) if len(group.members) > 1):
        for name, info in spec.evaluations.items():
            members = [member for member in group.members if asked(member, name)]
            for judge, kind, metric, primary in judges_of(info) if len(members) > 1 else ():
                if primary and kind != "steps":
                    frames = [per_item(cells[member.model, member.method, member.run, name].verdicts, judge, kind) for member in members]
                    yield from _variance(group, (name, metric, judge), frames)


def _variance(group: Group, names: tuple[str, str, str], frames: list[pl.DataFrame]) -> Iterator[Variance]:
    positive, counted = _matrices(frames)
    num_seeds, num_items = positive.shape
    if num_items < 2:
        return
    found, num_samples = components(positive, counted), 1 / float(np.mean(1 / counted))
    parts = {"se_seeds": found.seed / num_seeds, "se_prompts": found.prompt / num_items, "se_both": found.both / (num_seeds * num_items)}
    decoding = None if math.isnan(found.decoding) else found.decoding / (num_seeds * num_items * num_samples)
    errors = {name: round(math.sqrt(part), DIGITS) for name, part in parts.items()}
    rates = (positive / counted).mean(axis=1)
    keys = dict(zip(VARIANCE_COLUMNS, (group.model, group.method, group.run, *names), strict=False))
    yield Variance.model_validate(
        keys
        | {"num_seeds": num_seeds, "num_items": num_items, "num_samples": round(num_samples, 3)}
        | {"value": round(float(rates.mean()), DIGITS), "sd_over_seeds": round(float(rates.std(ddof=1)), DIGITS), **errors}
        | {"se_decoding": None if decoding is None else round(math.sqrt(decoding), DIGITS)}
        | {"se_total": round(math.sqrt(sum(parts.values()) + (decoding or 0.0)), DIGITS)}
    )


def _matrices(frames: list[pl.DataFrame]) -> tuple[Floats, Floats]:
    """Return counts of positive and of counted verdicts (seeds, items) for the items that every seed has a counted verdict of."""
    common = frames[0].filter(pl.col("num_counted") > 0).select("item_id")
    for frame in frames[1:]:
        common = common.join(frame.filter(pl.col("num_counted") > 0), on="item_id", how="semi")
    rows = [common.join(frame, on="item_id", how="left", maintain_order="left") for frame in frames]
    return tuple(np.array([row[name].to_list() for row in rows], dtype=float).reshape(len(rows), -1) for name in ("num_positive", "num_counted"))  # type: ignore[return-value]


def components(positive: Floats, counted: Floats) -> Components:
    """Return the components from counts (seeds, items) of 0/1 outcomes.

    With p the rates: mean squares of a two-way layout without replication, MS_both = var_both + var_decoding / samples.
    """
    rates = positive / counted
    num_seeds, num_items = rates.shape
    seed_means, item_means = rates.mean(axis=1), rates.mean(axis=0)
    left = rates - seed_means[:, None] - item_means[None, :] + rates.mean()
    ms_both = float((left**2).sum() / ((num_seeds - 1) * (num_items - 1)))
    seed = max(0.0, (num_items * float(seed_means.var(ddof=1)) - ms_both) / num_items)
    prompt = max(0.0, (num_seeds * float(item_means.var(ddof=1)) - ms_both) / num_seeds)
    several = counted > 1
    if not several.any():
        return Components(seed, prompt, ms_both, math.nan)
    decoding = float((rates * (1 - rates) * counted / np.maximum(counted - 1, 1))[several].mean())
    return Components(seed, prompt, max(0.0, ms_both - decoding * float(np.mean(1 / counted))), decoding)
