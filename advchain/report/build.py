"""Scores, training data, training logs and manifests -> tables, figures, report.html, summary.md."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from advchain.io import write_text
from advchain.judges.step_cues import score_steps
from advchain.manifests import StageTimer, make_manifest, manifest_path, write_manifest
from advchain.parallel import ALONE, Workers
from advchain.report import figures, plots, sweeps
from advchain.report.agreement import agreement_table
from advchain.report.claims import claims_table
from advchain.report.comparisons import contrasts_table, judges_table, paper_table, read_contrasts
from advchain.report.contrasts import Contrast
from advchain.report.corrected import corrected_table
from advchain.report.curves import Curve, curves_table, training_curves
from advchain.report.drift import CurvePoint, Drift
from advchain.report.drift_conditions import conditions
from advchain.report.drift_views import drift_curves, drift_table, read_rows, recovery
from advchain.report.forest import forest, forest_chains
from advchain.report.html import page
from advchain.report.links import linked
from advchain.report.markup import Table, write_table
from advchain.report.paper import PaperKey, PaperNumber, load_paper
from advchain.report.provenance import Manifest, files_table, read_manifests, stage_table
from advchain.report.scorer_views import drift_contrasts_table, scorers_table
from advchain.report.scorers import DriftContrast, ScorerAgreement, drift_contrasts_path, scorer_agreement_path
from advchain.report.scores import BESIDE, contrasts_path, drift_curves_path, drift_path
from advchain.report.summary import summary
from advchain.report.tables import Scores, health_table, main_table, ratio_table, read_scores
from advchain.report.unjudged import with_unjudged
from advchain.report.variance import Variance, variance_path
from advchain.report.variance_views import variance_table
from advchain.report_specs import ReportSpec

log = logging.getLogger(__name__)
Paper = Mapping[PaperKey, PaperNumber]
SCORER = "step cues (phrases, not a model)"


@dataclass(frozen=True)
class Evidence:
    """Everything that tables and figures are made of."""

    out: Path
    spec: ReportSpec
    scores: Scores
    contrasts: list[Contrast]
    paper: Paper
    drifts: list[Drift]
    points: list[CurvePoint]
    agreements: list[ScorerAgreement]
    changes: list[DriftContrast]
    variances: list[Variance]
    curves: list[Curve]
    training: Mapping[str, Sequence[Mapping[str, float]]]
    manifests: list[Manifest]


# In the order of the folder and the page.
TABLES: dict[str, Callable[[Evidence], Table]] = {
    "safety": lambda e: main_table(e.spec, e.scores, "safety"),
    "hijack": lambda e: main_table(e.spec, e.scores, "hijack"),
    "attacks": lambda e: main_table(e.spec, e.scores, "attacks"),
    "over_refusal": lambda e: main_table(e.spec, e.scores, "over_refusal"),
    "reasoning": lambda e: main_table(e.spec, e.scores, "reasoning"),
    "ratio": lambda e: ratio_table(e.spec, e.scores),
    "paper": lambda e: linked(paper_table(e.spec, e.scores, e.paper), e.spec),
    "claims": lambda e: claims_table(e.spec, e.paper, e.contrasts),
    "contrasts": lambda e: linked(contrasts_table(e.spec, e.contrasts), e.spec),
    "judges": lambda e: linked(judges_table(e.spec, e.scores), e.spec),
    "agreement": lambda e: agreement_table(e.spec),
    "corrected": lambda e: linked(corrected_table(e.spec, e.scores), e.spec),
    "health": lambda e: linked(with_unjudged(health_table(e.spec, e.scores), e.spec, e.manifests), e.spec),
    "drift": lambda e: drift_table(e.spec, e.drifts),
    "drift_contrasts": lambda e: drift_contrasts_table(e.spec, e.changes),
    "scorers": lambda e: scorers_table(e.spec, e.agreements, e.changes),
    "variance": lambda e: linked(variance_table(e.spec, e.variances), e.spec),
    "curves": lambda e: curves_table(e.curves, SCORER),
    "costs": lambda e: stage_table(e.manifests),
    "provenance": lambda e: files_table(e.manifests, e.out),
}
FIGURES: dict[str, Callable[[Evidence], Figure]] = {
    "tradeoff": lambda e: figures.tradeoff(e.spec, e.scores),
    "forest": lambda e: forest(e.spec, e.contrasts),
    "recovery": lambda e: recovery(e.spec, e.drifts),
    "forest_chains": lambda e: forest_chains(e.spec, e.changes),
    "drift": lambda e: drift_curves(e.spec, e.points),
    "conditions": lambda e: conditions(e.spec, e.points),
    "ratio": lambda e: sweeps.ratio(e.spec, e.scores),
    "size": lambda e: sweeps.size(e.spec, e.scores),
    "rate": lambda e: sweeps.rate(e.spec, e.scores),
    "snowball": lambda e: figures.snowball(e.curves, SCORER),
    "training": lambda e: figures.training(e.spec, e.training),
}


def build(
    out: Path,
    spec: ReportSpec,
    *,
    scores: Path,
    paper: Path,
    samples: Sequence[Path] = (),
    training: Mapping[str, Path] | None = None,
    manifests: Sequence[Path] = (),
    agreement: Path | None = None,
    workers: Workers = ALONE,
) -> None:
    """Write every table, figure, report.html and summary.md under `out`; report.html last, so that its presence means complete.

    Args:
        out: the results folder.
        scores: scores.csv, with the other files of the score rule beside it.
        samples: datasets and chain sets (Sample rows) for the step-score curves.
        training: model/method/run -> training.jsonl.
        manifests: manifests and model.json files for protocol, costs and provenance.
        agreement: agreement.json of a judge report on the user's own labels, whose figures then stand beside the numbers.
        workers: processes that draw figures side by side.

    Raises:
        DataError: an input does not fit.
    """
    timer = StageTimer()
    if agreement is not None:
        spec = spec.model_copy(update={"agreement": tuple(json.loads(agreement.read_text(encoding="utf-8"))["rows"])})
    evidence = read(out, spec, scores, load_paper(paper), samples, training or {}, manifests)
    tables = {name: make(evidence) for name, make in TABLES.items()}
    files = [path for table in tables.values() for path in write_table(out / "tables", table)]
    drawn = plots.save_all({name: partial(draw, name, evidence) for name in FIGURES}, out / "figures", workers)
    write_text(out / "summary.md", summary(spec, evidence.scores, evidence.contrasts, evidence.manifests))
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    write_text(out / "report.html", page(spec, tables, drawn, evidence.contrasts, evidence.manifests, created))
    inputs = [scores, *(path(scores) for path in BESIDE), *samples]
    manifest = make_manifest("report", spec.model_dump(mode="json"), inputs, timer)
    files += [out / "figures" / f"{name}.{ending}" for name in drawn for ending in plots.ENDINGS]
    write_manifest(manifest_path(out / "report.html"), manifest, [*files, out / "summary.md", out / "report.html"])
    log.info("report: %d tables, %d figures, %s", len(tables), len(drawn), out / "report.html")


def read(
    out: Path,
    spec: ReportSpec,
    scores: Path,
    paper: Paper,
    samples: Sequence[Path],
    training: Mapping[str, Path],
    manifests: Sequence[Path],
) -> Evidence:
    """Read what the score rule wrote, and what else the report shows.

    Raises:
        DataError: a file does not fit.
    """
    return Evidence(
        out=out,
        spec=spec,
        scores=read_scores(scores),
        contrasts=read_contrasts(contrasts_path(scores)),
        paper=paper,
        drifts=read_rows(drift_path(scores), Drift),
        points=read_rows(drift_curves_path(scores), CurvePoint),
        agreements=read_rows(scorer_agreement_path(scores), ScorerAgreement),
        changes=read_rows(drift_contrasts_path(scores), DriftContrast),
        variances=read_rows(variance_path(scores), Variance),
        curves=training_curves(samples, score_steps),
        training={name: figures.read_training(path) for name, path in training.items()},
        manifests=read_manifests(manifests),
    )


def draw(name: str, evidence: Evidence) -> Figure:
    """Make a figure of FIGURES: by name, as a process is told it."""
    return FIGURES[name](evidence)
