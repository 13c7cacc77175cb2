"""Where the responses behind a number can be read: addresses of the explorer, filtered to what the number counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from advchain.report.contrasts import POOLED
from advchain.report.frames import POSITIVE
from advchain.report.grid import Group, asked, groups
from advchain.report.markup import Table
from advchain.report_specs import ReportSpec

PAGE = "explorer/index.html#"


def responses(group: Group, evaluation: str, kind: str = "", reference: Group | None = None) -> str:
    """Return the address of a group's responses to an evaluation: those with the positive label of a kind of judge, beside those of a reference."""
    wanted = {"evaluation": evaluation, "left": _member(group, evaluation)}
    if reference is not None:
        wanted["right"] = _member(reference, evaluation)
    if kind and kind != "steps":
        wanted["left-label"] = POSITIVE[kind]
    return PAGE + urlencode(wanted)


def _member(group: Group, evaluation: str) -> str:
    """The first checkpoint of the group that was asked; the explorer shows one at a time."""
    member = next(member for member in group.members if asked(member, evaluation))
    return f"{member.model}/{member.method}/{member.run}"


def linked(table: Table, spec: ReportSpec) -> Table:
    """Let the numbers of a table whose rows stand for one group and evaluation each (a `raw` row per row) lead to their responses."""
    rows = {(group.model, group.method, group.run): group for group in groups(spec.checkpoints)}
    addresses: dict[tuple[int, int], str] = dict(table.addresses)
    numbers = [index for index in range(len(table.header)) if table.right(index)] or [len(table.header) - 1]
    for place, (row, raw) in enumerate(zip(table.rows, table.raw, strict=True)):
        found = _address(spec, rows, raw)
        addresses |= {(place, index): found for index in numbers if found and row[index] not in ("-", "none")}
    return replace(table, addresses=addresses)


def _address(spec: ReportSpec, rows: Mapping[tuple[str, str, str], Group], raw: Mapping[str, Any]) -> str:
    group, reference = rows[raw["model"], raw["method"], raw["run"]], rows.get((raw["model"], raw.get("reference", ""), raw.get("reference_run", "")))
    name = str(raw.get("evaluation") or raw["benchmark"])
    table = name.removeprefix(POOLED)
    together = [other for other, info in spec.evaluations.items() if info.table == table and group.has(other)]
    evaluation = name if name in spec.evaluations else next(iter(together), "")  # of several sets together: the first
    if not evaluation or not group.has(evaluation):
        return ""
    judges = spec.evaluations[evaluation].judges
    return responses(group, evaluation, judges.get(str(raw.get("judge", "")).split(", ")[0], ""), reference)
