"""What the report shows of scorer_agreement.csv and drift_contrasts.csv: do two step scorers agree, and does a finding hold under both?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advchain.report.drift_views import SHOWN, scorer_title, sets_of
from advchain.report.grid import groups
from advchain.report.links import responses
from advchain.report.markup import Table
from advchain.report.scorers import AGREEMENT_COLUMNS, ALL, DRIFT_CONTRAST_COLUMNS, DriftContrast, ScorerAgreement
from advchain.report_specs import ReportSpec

MEASURE_TITLE = {
    "drift_rate": "chains that drift",
    "drift_hazard": "hazard per step",
    "recovery_rate": "chains that come back",
    "ends_recovered": "chains that end recovered",
}
SIGNS = ("num_same_sign", "num_not_zero", "num_opposite")
Place = tuple[str, ...]  # everything of a drift contrast but its scorer


def scorers_table(spec: ReportSpec, agreements: Sequence[ScorerAgreement], changes: Sequence[DriftContrast]) -> Table:
    """Return a row per model, kind of chains and pair of scorers: agreement over all checkpoints, and of the signs of the drift contrasts."""
    titles = {info.model: info.model_title for info in spec.checkpoints}
    shown = [row for row in agreements if row.method == ALL]
    return Table(
        name="scorers",
        title="Two step scorers: do they agree?",
        header=["Model", "Chains of", "Scorers", "Weighted kappa", "Rank correlation", "Steps (chains)", "Same sign", "Opposite, both established"],
        rows=[
            [
                *(titles[row.model], SHOWN[row.nature, row.chains], f"{scorer_title(spec, row.scorer)} and {scorer_title(spec, row.other)}"),
                *(_number(row.kappa, row.kappa_low, row.kappa_high), _number(row.spearman, row.spearman_low, row.spearman_high)),
                *(f"{row.num_steps} ({row.num_chains})", f"{same} of {moved}", str(opposite)),
            ]
            for row in shown
            for same, moved, opposite in [_signs(row, changes)]
        ],
        columns=(*AGREEMENT_COLUMNS, *SIGNS),
        raw=[row.model_dump() | (dict(zip(SIGNS, _signs(row, changes), strict=True)) if row.method == ALL else {}) for row in agreements],
        notes=[
            "Quadratic weighted kappa of the scores rounded to 1..5, and Spearman's rank correlation, over the model's own steps; 95 % bootstrap over prompts. "
            "By checkpoint in the CSV. Kappa also falls where one scorer is only stricter; the rank correlation does not.",
            "Same sign: drift contrasts that are not 0 under either scorer and point the same way. Opposite, both established: each scorer's interval "
            "leaves out 0, on different sides; such a difference is the scorer's, not the model's.",
        ]
        if shown
        else [],
        empty="Fewer than two step judges were run, so nothing says whether another scorer would find the same.",
        numeric=3,
    )


def _number(value: float | None, low: float | None, high: float | None) -> str:
    return "none" if value is None or low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _signs(row: ScorerAgreement, changes: Sequence[DriftContrast]) -> tuple[int, int, int]:
    """Return how many drift contrasts have the same sign, how many are not 0 under either scorer, and how many are established with opposite signs."""
    mine = [change for change in changes if (change.model, change.nature, change.chains) == (row.model, row.nature, row.chains)]
    sides = [{_place(change): change for change in mine if change.scorer == scorer} for scorer in (row.scorer, row.other)]
    both = [(sides[0][place], sides[1][place]) for place in sides[0] if place in sides[1]]
    moved = [(a, b) for a, b in both if a.difference and b.difference]
    opposite = sum(apart(a) and apart(b) and a.difference * b.difference < 0 for a, b in moved)
    return sum(a.difference * b.difference > 0 for a, b in moved), len(moved), opposite


def apart(change: DriftContrast) -> bool:
    """Whether the interval leaves out 0."""
    return change.low > 0 or change.high < 0


def _place(change: DriftContrast) -> Place:
    return (change.model, change.method, change.run, change.reference, change.reference_run, change.nature, change.chains, change.measure)


def drift_contrasts_table(spec: ReportSpec, changes: Sequence[DriftContrast]) -> Table:
    """Return a row per pair of methods, kind of chains and measure, a column per scorer, and what the scorers say together."""
    names = {(row.model, row.method, row.run): row for row in groups(spec.checkpoints)}
    scorers = list(dict.fromkeys(change.scorer for change in changes))
    found: dict[Place, dict[str, DriftContrast]] = {}
    for change in changes:
        found.setdefault(_place(change), {})[change.scorer] = change
    rows: list[list[str]] = []
    addresses: dict[tuple[int, int], str] = {}
    for place, by_scorer in found.items():
        model, method, run, reference, reference_run, nature, chains, measure = place
        mine, other = names[model, method, run], names[model, reference, reference_run]
        title = f"{mine.method_title} against {other.method_title}"
        cells = [_points(by_scorer.get(scorer)) for scorer in scorers]
        evaluation = next(name for name in sets_of(spec, nature, chains) if mine.has(name) and other.has(name))
        addresses |= {(len(rows), 4 + index): responses(mine, evaluation, reference=other) for index in range(len(scorers))}
        rows.append([mine.first.model_title, title, SHOWN[nature, chains], MEASURE_TITLE[measure], *cells, _said(by_scorer, scorers)])
    return Table(
        name="drift_contrasts",
        title="Differences inside the chains, by step scorer",
        header=["Model", "Comparison", "Chains of", "Measure", *(scorer_title(spec, scorer) for scorer in scorers), "Together"],
        rows=rows,
        columns=DRIFT_CONTRAST_COLUMNS,
        raw=[change.model_dump() for change in changes],
        notes=[
            "Points of per cent, method minus reference, 95 % bootstrap over prompts, in brackets how many chains (of the hazard: steps at risk) each side "
            "has. Established here: the interval leaves out 0; not adjusted for their number. "
            "These say where the answers' differences may come from, they are no claims of their own.",
        ]
        if rows
        else [],
        empty="No step judge was run, or no two methods that are to be compared.",
        numeric=4,
        num_tail=1,
        addresses=addresses,
    )


def _points(change: DriftContrast | None) -> str:
    if change is None:
        return "-"
    return f"{100 * change.difference:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}] ({change.num} / {change.num_reference})"


def _said(by_scorer: Mapping[str, DriftContrast], scorers: Sequence[str]) -> str:
    """What two scorers say together; with one scorer, what it says."""
    known = [by_scorer[scorer] for scorer in scorers if scorer in by_scorer]
    signs = {(change.difference > 0) - (change.difference < 0) for change in known}
    words = {1: "higher", -1: "lower"}
    if not any(apart(change) for change in known):
        return "not established"
    if len(signs) > 1:
        return "scorers differ"
    word = words[signs.pop()]
    if len(known) == 1:
        return f"{word}, one scorer"
    return f"{word} under both" if all(apart(change) for change in known) else f"{word}, established under one"
