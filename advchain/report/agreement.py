"""Which agreement with people each judge's numbers stand on: on the user's own labels, else the figures that come with the package (scripts/judge_report.py
makes both).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from advchain.judges.compare import COLUMNS, FIXED, NEVER_TRAINED, REFERENCE, STORED, shipped_agreement
from advchain.judges.guard.labelled import OWN
from advchain.report.markup import Table
from advchain.report_specs import ReportSpec

SET_TITLES = {"harmbench": "HarmBench", "gptfuzz": "GPTFuzz", "safe_rlhf": "Safe-RLHF", "xstest": "XSTest", "pyrit": "PyRIT"}
PROTOCOLS = ("unseen questions and models", "unseen prompts and models", FIXED, NEVER_TRAINED)  # what stands under a table: the first that was measured
NAMES = ("judge", "kind", "set", "protocol", "method")
# judges whose stored verdicts came with a labelled set, under our names of them; another size or version is not the same judge
JUDGE_TITLES = {"llama_guard": "Llama Guard (first version, stored verdicts)", "harmbench_classifier": "HarmBench classifier", "gpt4": "GPT-4"}


@cache
def _shipped() -> tuple[dict[str, Any], ...]:
    return tuple(shipped_agreement()["rows"])


def _rows(spec: ReportSpec) -> list[dict[str, Any]]:
    """Return the figures of the user's own labels, if any, then the shipped ones; a figure that both have comes once."""
    found = {tuple(row[name] for name in NAMES): row for row in (*_shipped(), *spec.agreement)}
    own = {tuple(row[name] for name in NAMES) for row in spec.agreement}
    return [row for key, row in found.items() if key in own] + [row for key, row in found.items() if key not in own]


def _names(spec: ReportSpec, judge: str) -> list[str]:
    """Return the names under which a judge of this run may have been measured: its own; its file's, unless its options differ from the measured ones."""
    return [judge] if judge in spec.altered_judges else [judge, spec.judge_modules.get(judge, judge)]


def set_title(name: str) -> str:
    """Return how a labelled set is called; a file of the user's own is called "your labels" with its name."""
    return SET_TITLES.get(name, f"your labels ({name.removeprefix(OWN)})")


def reference_row(spec: ReportSpec, judge: str, kind: str) -> dict[str, Any] | None:
    """Return the figures that stand beside a judge's numbers: on the user's own labels, else on the reference set of its kind, held out where it was trained;
    None where it was not measured.
    """
    names = _names(spec, judge)
    mine = [row for row in _rows(spec) if row["judge"] in names and row["kind"] == kind and row["method"] == "all" and row["protocol"] in PROTOCOLS]
    mine = [row for row in mine if row["set"].startswith(OWN) or row["set"] == REFERENCE.get(kind)]
    ranked = sorted(mine, key=lambda row: (not row["set"].startswith(OWN), names.index(row["judge"]), PROTOCOLS.index(row["protocol"])))
    return ranked[0] if ranked else None


def agreement_note(spec: ReportSpec, judge: str, kind: str) -> str:
    """Return "; agrees with people on 79.1 % [75.2, 82.6] of 602 HarmBench answers (kappa 0.58, unseen questions and models)", or that it is not known."""
    if kind not in REFERENCE:
        return ""
    row = reference_row(spec, judge, kind)
    if row is None:
        return "; its agreement with people was not measured" + (" with these options" if judge in spec.altered_judges else " here")
    bounds = f"[{100 * row['agreement_low']:.1f}, {100 * row['agreement_high']:.1f}]"
    kappa = "none" if row["kappa"] is None else f"{row['kappa']:.2f}"
    if row["set"].startswith(OWN):
        return f"; agrees with {set_title(row['set'])} on {100 * row['agreement']:.1f} % {bounds} of {row['n']} answers (kappa {kappa})"
    return f"; agrees with people on {100 * row['agreement']:.1f} % {bounds} of {row['n']} {set_title(row['set'])} answers (kappa {kappa}, {row['protocol']})"


def agreement_table(spec: ReportSpec) -> Table:
    """Return every judge of the run, and the yardsticks, on every labelled set; methods are in the CSV."""
    used = {name for info in spec.evaluations.values() for judge in info.judges for name in _names(spec, judge)}
    harm = any(kind == "harm" for info in spec.evaluations.values() for kind in info.judges.values())  # the yardsticks are judges of harm
    shown = [row for row in _rows(spec) if (row["protocol"] == STORED and harm) or (row["protocol"] != STORED and row["judge"] in used)]
    whole = [row for row in shown if row["method"] == "all"]
    return Table(
        name="agreement",
        title="Judges against people's labels",
        header=["Judge", "Set", "Protocol", "Agreement %", "Kappa", "Sensitivity %", "False positives %"],
        rows=[[_title(spec, row), set_title(row["set"]), row["protocol"], *_numbers(row)] for row in whole],
        columns=COLUMNS,
        raw=shown,
        notes=[
            "Per cent, 95 % bootstrap over questions, number of labelled answers. Positive: unsafe, or refused. Per attack method in the CSV.",
            "Measured by scripts/judge_report.py on public human labels; docs/JUDGES.md names files, licences and what each was used for.",
            *(["Your labels come first; they stand under the tables and correct the rates."] if spec.agreement else []),
        ]
        if whole
        else [],
        empty="None of the run's judges was measured against people's labels.",
        numeric=3,
    )


def _title(spec: ReportSpec, row: dict[str, Any]) -> str:
    if row["protocol"] == STORED:
        return JUDGE_TITLES.get(row["judge"], str(row["judge"]))
    names = [judge for judge in spec.judge_titles if row["judge"] in _names(spec, judge)] or [row["judge"]]
    return spec.judge_titles.get(names[0], names[0]).split(":")[0].split(";")[0]


def _numbers(row: dict[str, Any]) -> list[str]:
    kappa = "none" if row["kappa"] is None else f"{row['kappa']:.2f}"
    return [_rate(row, "agreement", row["n"]), kappa, _rate(row, "sensitivity", row["num_positive"]), _rate(row, "fpr", row["n"] - row["num_positive"])]


def _rate(row: dict[str, Any], name: str, count: int) -> str:
    if row[name] is None:
        return f"none ({count})"
    return f"{100 * row[name]:.1f} [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}] ({count})"
