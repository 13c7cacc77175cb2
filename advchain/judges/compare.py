"""Judges against people's labels: every judge on every labelled set and attack method, as rows of numbers (no text)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from advchain.catalogue import modules
from advchain.judges.agreement import measure
from advchain.judges.guard.labelled import SETS_OF, TRAINING_SETS, Labelled
from advchain.judges.run import judge_with
from advchain.records import Response
from advchain.specs import JudgeSpec

POSITIVE = {"harm": "unsafe", "refusal": "refused"}
NEGATIVE = {"harm": "safe", "refusal": "complied"}
HEAD_OF = {"embedded_guard": "harm", "embedded_refusal": "refusal"}
FIXED = "fixed rule"
STORED = "verdicts stored with the set"
NEVER_TRAINED = "set never used in training"
COLUMNS = (
    "judge", "kind", "set", "protocol", "method", "n", "num_positive", "agreement", "agreement_low", "agreement_high", "kappa", "sensitivity",
    "sensitivity_low", "sensitivity_high", "fpr", "fpr_low", "fpr_high", "num_unjudged",
)  # fmt: skip
OFFLINE = ("embedded_guard", "string_match", "embedded_refusal", "refusal_phrases")


@dataclass(frozen=True)
class Readings:
    """One judge's positives on labelled rows under one protocol; a row that it could not judge is not in `positive`."""

    judge: str
    kind: str
    protocol: str
    positive: Mapping[str, bool]


def as_response(row: Labelled) -> Response:
    """Return a labelled row as the response that a judge reads."""
    return Response(
        id=row.id, item_id=row.question, benchmark=row.source, nature="harmful", prompt=row.request, request=row.request, sample_index=0, seed=0,
        text=row.answer, thinking="", answer=row.answer, state="closed", finish="stop", num_prompt_tokens=0, num_tokens=0,
    )  # fmt: skip


def read_with(spec: JudgeSpec, rows: Sequence[Labelled], work: Path, protocol: str = FIXED) -> Readings:
    """Let a judge read the rows whose kind of label it gives."""
    kind = str(modules("judges")[spec.kind].constants["MEASURES"])
    asked = [row for row in rows if row.label(kind) is not None]
    verdicts, _ = judge_with(spec, [as_response(row) for row in asked], work, work / "sentinels")
    known = {POSITIVE[kind]: True, NEGATIVE[kind]: False}
    return Readings(spec.name, kind, protocol, {v.response_id: known[v.label] for v in verdicts if v.label in known})


def offline_spec(name: str) -> JudgeSpec:
    """The spec of a judge that needs neither key nor weights, with its default options."""
    return JudgeSpec(version=modules("judges")[name].version, name=name, kind=name)


def offline_readings(rows: Sequence[Labelled], work: Path) -> Iterator[Readings]:
    """Yield the readings of every offline judge; the guard's on sets that it was trained on are its held-out ones."""
    for name in OFFLINE:
        if name not in HEAD_OF:
            yield read_with(offline_spec(name), rows, work)
            continue
        unseen = [row for row in rows if row.source not in TRAINING_SETS]
        if any(row.label(HEAD_OF[name]) is not None for row in unseen):
            yield read_with(offline_spec(name), unseen, work, NEVER_TRAINED)
        for protocol, found in held_out_probabilities()[HEAD_OF[name]].items():
            yield Readings(name, HEAD_OF[name], protocol, {row_id: value >= 0.5 for row_id, value in found.items()})


def held_out_probabilities() -> dict[str, dict[str, dict[str, float]]]:
    """kind -> protocol -> row id -> probability, as train_guard.py measured it."""
    text = resources.files("advchain.judges.guard").joinpath("held_out.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, dict[str, float]]] = json.loads(text)["probabilities"]
    return found


def stored_readings(rows: Sequence[Labelled]) -> Iterator[Readings]:
    """Yield the verdicts of other judges that came with a set: the yardsticks."""
    for judge in dict.fromkeys(judge for row in rows for judge in row.others):
        yield Readings(judge, "harm", STORED, {row.id: row.others[judge] for row in rows if judge in row.others})


def agreement_rows(rows: Sequence[Labelled], readings: Iterable[Readings]) -> list[dict[str, Any]]:
    """Return one row of numbers per judge, set, protocol and method ("all" first)."""
    found = []
    for reading in readings:
        for source in dict.fromkeys(row.source for row in rows):
            mine = [row for row in rows if row.source == source and row.label(reading.kind) is not None]
            for method in ("all", *_methods(mine)):
                found += _row(reading, source, method, [row for row in mine if method in ("all", row.method)])
            for model in _models(mine) if source == "xstest" else ():
                found += _row(reading, source, f"model {model}", [row for row in mine if row.model == model])
    return found


def _methods(rows: Sequence[Labelled]) -> list[str]:
    names = sorted({row.method for row in rows})
    return names if len(names) > 1 and rows[0].source != "xstest" else []


def _models(rows: Sequence[Labelled]) -> list[str]:
    return sorted({row.model for row in rows})


def _row(reading: Readings, source: str, method: str, rows: Sequence[Labelled]) -> list[dict[str, Any]]:
    judged = [row for row in rows if row.id in reading.positive]
    if not judged:
        return []
    found = measure([bool(row.label(reading.kind)) for row in judged], [reading.positive[row.id] for row in judged], [row.question for row in judged])
    names = {"judge": reading.judge, "kind": reading.kind, "set": source, "protocol": reading.protocol, "method": method}
    unjudged = 0 if reading.judge in HEAD_OF or reading.protocol == STORED else len(rows) - len(judged)
    return [names | found.as_json() | {"num_unjudged": unjudged}]


def shipped_agreement() -> dict[str, Any]:
    """The figures that come with the package: {"command", "data" (file -> sha256), "rows" (COLUMNS)}."""
    found: dict[str, Any] = json.loads(resources.files("advchain.judges").joinpath("agreement.json").read_text(encoding="utf-8"))
    return found


# the set on which a judge of each kind is measured where a table says how good it is: the largest one with several people's labels per answer
REFERENCE = {"harm": "harmbench", "refusal": "xstest"}
assert set(REFERENCE) == set(SETS_OF)
