"""What was never said: answers that an endpoint's content filter cut, and verdicts that a judge (or its provider's filter) refused to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from advchain.report.grid import Group, groups
from advchain.report.markup import Table
from advchain.report.provenance import Manifest
from advchain.report_specs import ReportSpec

COLUMNS = ("filtered", "judge_refused", "judge_filtered")
NOTE = (
    "Filtered: answers that the endpoint of the model cut short by its content filter, counted as they came. Judge refused: verdicts that a judge did not give "
    "(of these, those that the content filter of its provider stopped); they are outside every rate."
)
Key = tuple[str, ...]  # model, method, run, evaluation


def counts_by_cell(manifests: Sequence[Manifest]) -> dict[Key, tuple[int, int, int]]:
    """Return what the manifests of responses and verdicts counted, by the place of their files: results/<stage>/<model>/<method>/<run>/<evaluation>."""
    found: dict[Key, tuple[int, int, int]] = {}
    for manifest in manifests:
        counts, key = manifest.value.get("counts", {}), (*manifest.path.parts[-4:-1], manifest.path.name.removesuffix(".manifest.json"))
        if manifest.stage == "responses":
            found[key] = _add(found.get(key), (int(counts.get("filtered", 0)), 0, 0))
        elif manifest.stage == "judge":
            refused = sum(int(labels.get("refused_to_judge", 0)) for labels in counts.values() if isinstance(labels, Mapping))
            found[key] = _add(found.get(key), (0, refused, sum(counts.get("content_filter", {}).values())))
    return found


def with_unjudged(health: Table, spec: ReportSpec, manifests: Sequence[Manifest]) -> Table:
    """Return the health table with these counts behind its columns."""
    known = counts_by_cell(manifests)
    cells = [_cell(known, group, name) for group in groups(spec.checkpoints) for name in spec.evaluations if group.has(name)]
    return replace(
        health,
        header=[*health.header, "Filtered", "Judge refused"],
        rows=[[*row, str(cell[0]), f"{cell[1]} ({cell[2]})" if cell[2] else str(cell[1])] for row, cell in zip(health.rows, cells, strict=True)],
        columns=[*health.columns, *COLUMNS],
        raw=[{**row, **dict(zip(COLUMNS, cell, strict=True))} for row, cell in zip(health.raw, cells, strict=True)],
        notes=[*health.notes, NOTE],
    )


def _cell(known: Mapping[Key, tuple[int, int, int]], group: Group, evaluation: str) -> tuple[int, int, int]:
    """Return the sums over a group's runs."""
    total = (0, 0, 0)
    for member in group.members:
        total = _add(known.get((member.model, member.method, member.run, evaluation)), total)
    return total


def _add(first: tuple[int, int, int] | None, second: tuple[int, int, int]) -> tuple[int, int, int]:
    return second if first is None else (first[0] + second[0], first[1] + second[1], first[2] + second[2])
