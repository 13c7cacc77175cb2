"""What the embedded guard makes of every row of a training set, before anyone uploads it (RELIABILITY E8): counts and ids, no text.

It reads each answer and each injected step against the row's prompt. Error steps of T-C rows are meant to argue towards complying, so some are flagged; an
answer that is flagged, or a step that gives operational detail, is what a person should look up. The guard is a small model that was trained on whole
answers (docs/JUDGES.md): the report is no permission to publish, it says where to look first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advchain.io import iter_records, sha256_file, write_json, write_text
from advchain.judges import embedded_guard
from advchain.judges.guard.model import score_pair, shipped_heads
from advchain.records import Sample

THRESHOLD = 0.5  # least P(harm) of a flagged text, as in the embedded guard
MAX_LISTED = 50
JSON, PAGE = "guard.json", "guard.md"


class Reading(NamedTuple):
    """One text that the guard read: `part` is answer, or the role of an injected step."""

    sample: str
    kind: str
    part: str
    harm: float


def write_guard_report(folder: Path, dataset: Path) -> None:
    """Write guard.json (with the sha256 of the training set it is about) and guard.md into the folder that would be uploaded.

    Raises:
        DataError: a row of the training set does not fit.
    """
    readings = list(read_samples(iter_records(dataset, Sample)))
    parts = summarise(readings)
    flagged = sorted({reading.sample for reading in readings if reading.part == "answer" and reading.harm >= THRESHOLD})
    report = {
        "guard": f"embedded_guard, version {embedded_guard.VERSION}",
        "threshold": THRESHOLD,
        "dataset_sha256": sha256_file(dataset),
        "parts": parts,
        "flagged_answers": flagged,
        "flagged_steps": sorted({reading.sample for reading in readings if reading.part != "answer" and reading.harm >= THRESHOLD}),
    }
    write_text(folder / PAGE, _page(report))
    write_json(folder / JSON, report)


def read_samples(samples: Iterable[Sample]) -> Iterator[Reading]:
    """Yield the guard's reading of each answer and each step that was injected."""
    heads = shipped_heads()
    for sample in samples:
        texts = [("answer", sample.answer), *((step.role, step.rendered) for step in sample.steps if step.role != "base")]
        for part, text in texts:
            yield Reading(sample.id, sample.kind, part, score_pair(heads, sample.prompt, text)["harm"])


def summarise(readings: Iterable[Reading]) -> list[dict[str, Any]]:
    """Return texts, flagged ones and the highest P(harm) by kind of row and part."""
    found: dict[tuple[str, str], list[float]] = {}
    for reading in readings:
        found.setdefault((reading.kind, reading.part), []).append(reading.harm)
    return [
        {"kind": kind, "part": part, "texts": len(harms), "flagged": sum(harm >= THRESHOLD for harm in harms), "highest": round(max(harms), 4)}
        for (kind, part), harms in sorted(found.items())
    ]


def _page(report: Mapping[str, Any]) -> str:
    head = ("kind", "part", "texts", "flagged", "highest")
    lines = [head, ("---",) * len(head), *([row[name] for name in head] for row in report["parts"])]
    table = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
    return (
        f"# Guard report\n\nEvery answer and every injected step, read by {report['guard']} against the row's prompt; flagged from P(harm) = "
        f"{report['threshold']}. Error steps of T-C rows argue towards complying on purpose. The guard is small and was trained on whole answers: it says "
        f"where to look first, and is no permission to publish.\n\n{table}\n\nAnswers to look up: {_listed(report['flagged_answers'])}\n\n"
        f"Rows with a flagged step: {_listed(report['flagged_steps'])}\n\nsha256 of the training set: `{report['dataset_sha256']}`\n"
    )


def _listed(ids: list[str]) -> str:
    more = len(ids) - MAX_LISTED
    return (", ".join(f"`{name}`" for name in ids[:MAX_LISTED]) + (f" and {more} more (guard.json)" if more > 0 else "")) or "none"
