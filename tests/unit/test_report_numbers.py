"""Every number in the report's HTML is one of the CSV beside it, after the rounding that its digits show."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl

from advchain.report.build import TABLES

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?")
ROW_BY_ROW = {"safety", "hijack", "over_refusal", "reasoning", "ratio", "paper", "claims", "contrasts", "judges", "corrected", "health", "variance", "costs"}
PIVOTED = {"drift", "scorers", "drift_contrasts", "curves", "agreement"}  # a shown row is made of several of the CSV
# cells before it are names; the first column of a grouped table is not among the cells
FIRST_NUMBER = {
    "claims": 2,
    "health": 2,
    "judges": 4,
    "paper": 2,
    "corrected": 2,
    "agreement": 2,
    "drift": 3,
    "curves": 2,
    "drift_contrasts": 3,
    "variance": 2,
    "scorers": 2,
}


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


def test_every_number_is_in_the_csv(report: Path) -> None:
    cells, checked = Cells(), 0
    cells.feed((report / "report.html").read_text())
    assert {name for name in TABLES if _rows(report, name)} == {name for name, rows in cells.tables.items() if any(rows)} >= ROW_BY_ROW | PIVOTED
    for name, rows in cells.tables.items():
        raw, shown = _rows(report, name), [row for row in rows if row]
        whole = {number for row in raw for number in numbers_of(row)}
        if name == "agreement":  # false positives are a share of the negatives, whose number is a difference of two columns
            whole |= {float(row["n"]) - float(row["num_positive"]) for row in raw}
        assert name not in ROW_BY_ROW or len(shown) == len(raw), name
        for index, row in enumerate(shown if name != "provenance" else []):
            known = set(numbers_of(raw[index])) if name in ROW_BY_ROW else whole
            for number in NUMBER.findall(" ".join(row[FIRST_NUMBER.get(name, 1) :]).replace("p < 0.001", "")):
                assert fits(number, known), f"{name}, row {index}: {number} of {row}"
                checked += 1
    assert checked > 900


def _rows(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_findings_say_what_the_csv_says(report: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (report / "report.html").read_text())
    told = [row["sentence"] for row in _rows(report, "contrasts") if row["established"] == "True"]
    assert told and all(sentence in page for sentence in told)


class Links(Cells):
    """Where the cells of numbers lead, by table: the address, or "" without one."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: dict[str, list[str]] = {}
        self.number = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        found = dict(attrs)
        if tag == "td":
            self.number = found.get("class") == "n"
            if self.number:
                self.addresses.setdefault(self.name, []).append("")
        elif tag == "a" and self.inside and self.number:
            self.addresses[self.name][-1] = found.get("href") or ""


def test_every_rate_leads_to_its_responses(report: Path) -> None:
    """The rest are not measured here: numbers of the paper, of judges' own test sets, of training data, of files."""
    links = Links()
    links.feed((report / "report.html").read_text())
    led = {name: [address for address in addresses if address] for name, addresses in links.addresses.items()}
    elsewhere = {"claims", "agreement", "curves", "costs", "provenance", "scorers"}
    assert {name for name, found in led.items() if not found} <= elsewhere
    with open(report / "scores.csv", newline="") as file:
        scores = {(row["benchmark"], "/".join((row["model"], row["method"], row["run"]))) for row in csv.DictReader(file)}
    for name, found in led.items():
        for address in found:
            page, _, wanted = address.partition("#")
            options = dict(parse_qsl(wanted))
            assert page == "explorer/index.html" and (options["evaluation"], options["left"]) in scores, f"{name}: {address}"
    for name in ("safety", "judges", "health", "corrected", "drift", "drift_contrasts"):
        assert len(led[name]) > 0.6 * len(links.addresses[name]), name  # not the columns of the paper, of counts, nor "-"
