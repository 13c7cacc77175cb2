"""Every number in the report's HTML is one of the CSV beside it, after the rounding that its digits show."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_grid import Grid, checkpoint, evaluation, report_spec, score_spec
from test_report_build import ROOT, make

from advchain.report.build import TABLES, build
from advchain.report.scores import score

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?")
ROW_BY_ROW = {"safety", "hijack", "over_refusal", "reasoning", "ratio", "paper", "contrasts", "judges", "corrected", "health", "variance", "costs"}
STEPS = {"harmbench": evaluation("HarmBench", "safety", "harmful", {"guard": "harm", "cues": "steps", "model": "steps"})}


class Cells(HTMLParser):
    """The texts of the cells of every table, by table and row; headers, notes and lines that name a group are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.name, self.inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "figure":
            self.name = (found.get("id") or "").removeprefix("table-")
        elif tag == "tr" and found.get("class") != "group":
            self.tables.setdefault(self.name, []).append([])
        elif tag == "td":
            self.inside = True
            self.tables[self.name][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[self.name][-1][-1] += data


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The grid of the other tests, and one with two step scorers."""
    paper, outs = ROOT / "config/paper_numbers.yaml", []
    root = tmp_path_factory.mktemp("numbers")
    _, spec = make(root, root / "results")
    outs.append((root / "results", spec, [root / "advchain.jsonl"]))
    root = tmp_path_factory.mktemp("steps")
    counted, grid = score_spec([checkpoint("star1"), checkpoint("advchain")], STEPS), Grid(root)
    for number, method in enumerate(("star1", "advchain")):
        chains = [[1.0, 2.0 + i % 4, 4.0 - i % 3 * number, 1.0 + i % 5] for i in range(40)]
        steps = {"cues": chains, "model": [[min(5.0, step + i % 2) for step in chain] for i, chain in enumerate(chains)]}
        grid.add(("r1", method, "seed0", "harmbench"), {"guard": ["safe", "unsafe"] * 20, "cues": ["scored"] * 40, "model": ["scored"] * 40}, steps=steps)
    score(root / "results/scores.csv", counted, grid.verdicts, grid.responses)
    outs.append((root / "results", report_spec(counted), []))
    for out, spec, samples in outs:
        build(out, spec, scores=out / "scores.csv", contrasts=out / "contrasts.csv", paper=paper, samples=samples, manifests=[out / "scores.manifest.json"])
    return [out for out, *_ in outs]


def numbers_of(row: dict[str, str]) -> Iterator[float]:
    """Every number of a CSV row, alone in its cell or in its words."""
    for text in row.values():
        yield from (abs(float(number)) for number in NUMBER.findall(text or ""))


def fits(shown: str, known: set[float]) -> bool:
    """Whether a shown number is a known one at its own precision, as it is or in per cent."""
    digits = shown.lstrip("+-")
    if "e" in digits:
        return any(f"{number:.0e}" == digits for number in known)
    places = len(digits.partition(".")[2])
    return any(abs(float(digits) - number * scale) <= 0.5 * 10**-places + 1e-6 for number in known for scale in (1, 100))


def test_every_number_is_in_the_csv(results: list[Path]) -> None:
    seen, checked = set(), 0
    for out in results:
        cells = Cells()
        cells.feed((out / "report.html").read_text())
        assert set(TABLES) - set(cells.tables) <= {"attacks", "snowball"} | {name for name in TABLES if not _rows(out, name)}
        for name, rows in cells.tables.items():
            raw, shown = _rows(out, name), [row for row in rows if row]
            assert not shown or raw, name
            seen |= {name} if shown else set()
            whole = {number for row in raw for number in numbers_of(row)}
            if name == "agreement":  # false positives are a share of the negatives, whose number is a difference of two columns
                whole |= {float(row["n"]) - float(row["num_positive"]) for row in raw}
            if name in ROW_BY_ROW:
                assert len(shown) == len(raw), name
            for index, row in enumerate(shown):
                known = set(numbers_of(raw[index])) if name in ROW_BY_ROW else whole
                for text in row[_first_number(name) :]:
                    for number in NUMBER.findall(re.sub(r"[0-9a-f]{12}", "", text)):
                        assert fits(number, known), f"{out.name}/{name}, row {index}: {number} of '{text}'"
                        checked += 1
    assert seen >= ROW_BY_ROW | {"drift", "scorers", "drift_contrasts", "curves"} - {"attacks"} and checked > 900


def _rows(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def _first_number(name: str) -> int:
    """Cells before it are names; the first column of a grouped table is not among the cells."""
    return {"health": 2, "judges": 4, "paper": 2, "corrected": 2, "agreement": 2, "drift": 3, "curves": 2, "drift_contrasts": 3, "variance": 2}.get(name, 1)


def test_findings_say_what_the_csv_says(results: list[Path]) -> None:
    page = re.sub(r"<[^>]+>", "", (results[0] / "report.html").read_text())
    told = [row["sentence"] for row in _rows(results[0], "contrasts") if row["established"] == "True"]
    assert told and all(sentence in page for sentence in told)
