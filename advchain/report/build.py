"""Scores, training data, training logs and manifests -> tables, figures, report.html, summary.md."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from advchain.io import write_text
from advchain.judges.step_cues import score_steps
from advchain.manifests import StageTimer, make_manifest, manifest_path, write_manifest
from advchain.report import figures, plots, sweeps
from advchain.report.agreement import agreement_table
from advchain.report.claims import claims_table
from advchain.report.comparisons import contrasts_table, judges_table, paper_table, read_contrasts
from advchain.report.corrected import corrected_table
from advchain.report.curves import Curve, curves_table, training_curves
from advchain.report.drift import CurvePoint, Drift
from advchain.report.drift_conditions import conditions
from advchain.report.drift_views import drift_curves, drift_table, read_rows, recovery
from advchain.report.forest import forest, forest_chains
from advchain.report.html import MAIN_TABLES, page
from advchain.report.markup import Table, write_table
from advchain.report.paper import load_paper
from advchain.report.provenance import Manifest, files_table, read_manifests, stage_table
from advchain.report.scorer_views import drift_contrasts_table, scorers_table
from advchain.report.scorers import DriftContrast, ScorerAgreement, drift_contrasts_path, scorer_agreement_path
from advchain.report.scores import drift_curves_path, drift_path
from advchain.report.summary import summary
from advchain.report.tables import Scores, health_table, main_table, ratio_table, read_scores
from advchain.report.unjudged import with_unjudged
from advchain.report.variance import Variance, variance_path
from advchain.report.variance_views import variance_table
from advchain.report_specs import ReportSpec

log = logging.getLogger(__name__)
SCORER = "step cues (phrases, not a model)"
TABLES = (
    *MAIN_TABLES,
    *("ratio", "paper", "claims", "contrasts", "judges", "agreement", "corrected", "health", "drift", "drift_contrasts", "scorers", "variance", "curves"),
    *("costs", "provenance"),
)
FIGURES = ("tradeoff", "forest", "recovery", "forest_chains", "drift", "conditions", "ratio", "size", "rate", "snowball", "training")


def build(
    out: Path,
    spec: ReportSpec,
    *,
    scores: Path,
    contrasts: Path,
    paper: Path,
    samples: Sequence[Path] = (),
    training: Mapping[str, Path] | None = None,
    manifests: Sequence[Path] = (),
    agreement: Path | None = None,
) -> None:
    """Write every table, figure, report.html and summary.md under `out`; report.html last, so that its presence means complete.

    Args:
        out: the results folder.
        samples: datasets and chain sets (Sample rows) for the step-score curves.
        training: model/method/run -> training.jsonl.
        manifests: manifests and model.json files for protocol, costs and provenance.
        agreement: agreement.json of a judge report on the user's own labels, whose figures then stand beside the numbers.

    Raises:
        DataError: an input does not fit.
    """
    timer = StageTimer()
    if agreement is not None:
        spec = spec.model_copy(update={"agreement": tuple(json.loads(agreement.read_text(encoding="utf-8"))["rows"])})
    rows, pairs, known = read_scores(scores), read_contrasts(contrasts), read_manifests(manifests)
    drifts, points = read_rows(drift_path(scores), Drift), read_rows(drift_curves_path(scores), CurvePoint)
    agreements, changes = read_rows(scorer_agreement_path(scores), ScorerAgreement), read_rows(drift_contrasts_path(scores), DriftContrast)
    curves = training_curves(samples, score_steps)
    made = [
        contrasts_table(spec, pairs),
        paper_table(spec, rows, load_paper(paper)),
        claims_table(spec, load_paper(paper), pairs),
        drift_table(spec, drifts),
        drift_contrasts_table(spec, changes),
        scorers_table(spec, agreements, changes),
        variance_table(spec, read_rows(variance_path(scores), Variance)),
        curves_table(curves, SCORER),
    ]
    tables = all_tables(out, spec, rows, made, known)
    files = [path for table in tables.values() for path in write_table(out / "tables", table)]
    logs = {name: figures.read_training(path) for name, path in (training or {}).items()}
    drawn = draw(out / "figures", spec, rows, curves, logs) | draw_drift(out / "figures", spec, drifts, points)
    forests = {"forest": forest(spec, pairs), "forest_chains": forest_chains(spec, changes)}
    drawn |= {name: plots.save(figure, out / "figures", name) for name, figure in forests.items()}
    drawn = {name: drawn[name] for name in FIGURES}
    write_text(out / "summary.md", summary(spec, rows, pairs, known))
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    write_text(out / "report.html", page(spec, tables, drawn, pairs, known, created))
    counted = [drift_path(scores), drift_curves_path(scores), scorer_agreement_path(scores), drift_contrasts_path(scores), variance_path(scores)]
    manifest = make_manifest("report", spec.model_dump(mode="json"), [scores, contrasts, *counted, *samples], timer)
    files += [out / "figures" / f"{name}.{ending}" for name in drawn for ending in plots.ENDINGS]
    write_manifest(manifest_path(out / "report.html"), manifest, [*files, out / "summary.md", out / "report.html"])
    log.info("report: %d tables, %d figures, %s", len(tables), len(drawn), out / "report.html")


def all_tables(out: Path, spec: ReportSpec, scores: Scores, made: Sequence[Table], manifests: Sequence[Manifest]) -> dict[str, Table]:
    """Return the tables by name, in the order of TABLES; `made` are those that need more than the scores."""
    mine = [*(main_table(spec, scores, name) for name in MAIN_TABLES), ratio_table(spec, scores), judges_table(spec, scores)]
    mine += [with_unjudged(health_table(spec, scores), spec, manifests), agreement_table(spec), corrected_table(spec, scores)]
    found = {table.name: table for table in (*mine, *made, stage_table(manifests), files_table(manifests, out))}
    return {name: found[name] for name in TABLES}


def draw(folder: Path, spec: ReportSpec, scores: Scores, curves: Sequence[Curve], logs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, str]:
    """Write the figures as SVG, PNG and PDF; return their inline SVG by name."""
    made = {
        "tradeoff": figures.tradeoff(spec, scores),
        "ratio": sweeps.ratio(spec, scores),
        "size": sweeps.size(spec, scores),
        "rate": sweeps.rate(spec, scores),
        "snowball": figures.snowball(curves, SCORER),
        "training": figures.training(spec, logs),
    }
    return {name: plots.save(figure, folder, name) for name, figure in made.items()}


def draw_drift(folder: Path, spec: ReportSpec, drifts: Sequence[Drift], points: Sequence[CurvePoint]) -> dict[str, str]:
    """The same for what the step judges found in the answers' chains."""
    return {
        "recovery": plots.save(recovery(spec, drifts), folder, "recovery"),
        "drift": plots.save(drift_curves(spec, points), folder, "drift"),
        "conditions": plots.save(conditions(spec, points), folder, "conditions"),
    }
