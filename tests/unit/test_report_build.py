"""The whole report from synthetic files: golden tables, equal numbers everywhere, a page that asks nobody for anything.

After a wanted change: ADVCHAIN_UPDATE_GOLDEN=1 pytest tests/unit/test_report_build.py, then read the diff.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser
from report_grid import RATES, ROOT, Grid, cell, checkpoint, dumps, make, report_spec, score_spec

from advchain.report.build import FIGURES, TABLES, build
from advchain.report.scores import score
from advchain.report.terminal import terminal_text

GOLDEN = ROOT / "tests/golden/report"
STABLE = (
    "safety",
    "hijack",
    "over_refusal",
    "reasoning",
    "ratio",
    "paper",
    "claims",
    "contrasts",
    "judges",
    "health",
    "curves",
    "variance",
)  # costs, provenance: paths and times
JUDGES = ("agreement", "corrected")  # these move when a judge is measured anew


@pytest.mark.parametrize("name", [*STABLE, *JUDGES])
@pytest.mark.parametrize("ending", ["csv", "md"])
def test_tables_are_byte_for_byte(report: Path, name: str, ending: str) -> None:
    made, golden = (report / "tables" / f"{name}.{ending}").read_text(), GOLDEN / f"{name}.{ending}"
    if os.environ.get("ADVCHAIN_UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(made)
    assert made == golden.read_text()


def test_all_outputs_are_there_and_nothing_else(report: Path) -> None:
    made = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    expected = {f"tables/{name}.{ending}" for name in TABLES for ending in ("csv", "md", "tex", "html")}
    expected |= {f"figures/{name}.{ending}" for name in FIGURES for ending in ("svg", "png", "pdf")}
    assert made == expected | {
        "report.html",
        "report.manifest.json",
        "summary.md",
        "scores.csv",
        "scores.manifest.json",
        "contrasts.csv",
        "drift.csv",
        "drift_curves.csv",
        "drift_contrasts.csv",
        "scorer_agreement.csv",
        "variance.csv",
        "disagreements.csv",
    }


def test_readable_numbers_equal_the_csv(report: Path) -> None:
    page = (report / "report.html").read_text()
    with open(report / "tables/safety.csv", newline="") as file:
        for row in csv.DictReader(file):
            for stem in ("harmbench_asr", "harmbench_rr"):
                value, low, high = (f"{float(row[f'{stem}_{part}']):.1f}" for part in ("percent", "low", "high"))
                shown = re.compile(rf"<b><a [^>]+>{value}</a></b> <span>\[{low}, {high}\] \({row[f'{stem}_n']}\)")
                assert shown.search(page) and shown.search((report / "tables/safety.html").read_text())
                assert f"{value} [{low}, {high}] ({row[f'{stem}_n']})" in (report / "tables/safety.md").read_text()


def test_known_cells(report: Path) -> None:
    text = (report / "tables/safety.md").read_text()
    assert "52.6 [45.6, 59.5] (194) ‡" in text  # 102 of 194 answered, 6 of 200 left out
    assert "Excluded (no answer, judge refused, or verdict not readable): HarmBench ASR 6, HarmBench RR 6." in text
    assert "ASR: judged by Guard, a string match: not a harm judgement; agrees with people on " in text
    assert "51.00 (200)" in (report / "tables/paper.md").read_text()


class References(HTMLParser):
    """Collects every address that a browser would load or follow, and what is never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "xlink:href")]
        if tag not in ("meta", "br", "link", "img", "path", "use", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_is_self_contained(report: Path) -> None:
    page = (report / "report.html").read_text()
    references = References()
    references.feed(page)
    assert references.found and not references.open
    assert not [ref for ref in references.found if re.match(r"(?:\w+:)?//|\w+:", ref)]
    assert not re.search(r"https?:", page) and "@import" not in page and "<img" not in page
    anchors = {ref[1:] for ref in references.found if ref.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_in_a_browser(report: Path, tmp_path: Path) -> None:
    """No request but for itself, no complaint; tables sort within their groups and filter."""
    with Browser() as browser:
        browser.open(report / "report.html")
        assert browser.requests == [(report / "report.html").resolve().as_uri()] and browser.complaints == []
        cells = "[...document.querySelectorAll('#table-safety tbody tr:not(.group)')].map(r => parseFloat(r.cells[1].textContent))"
        browser.click("#table-safety th:nth-child(2) button")
        rising = browser.run(cells)
        browser.click("#table-safety th:nth-child(2) button")
        assert rising == sorted(rising) and browser.run(cells) == rising[::-1] and len(set(rising)) > 2
        rows = "[...document.querySelectorAll('#table-contrasts tbody tr:not(.group)')].filter(r => !r.hidden).length"
        before = browser.run(rows)
        browser.type("#table-contrasts .filter", "star-1 harmbench")
        assert 0 < browser.run(rows) < before
        assert browser.run("document.querySelector('#table-safety td b a').getAttribute('href')").startswith("explorer/index.html#evaluation=harmbench&left=")
        assert browser.complaints == []


def test_the_page_shows_no_prompt_and_escapes_text(report: Path) -> None:
    for path in [report / "report.html", report / "summary.md", *report.glob("tables/*")]:
        assert "CANARY" not in path.read_text(), path
    assert "The teacher is &lt;our&gt; choice &amp; not the paper&#x27;s." in (report / "report.html").read_text()


def test_findings_are_the_contrasts(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert '<h3>AdvChain against base, R1-7B</h3><ul><li>HarmBench ASR: <span class="good">lower</span> by ' in page
    assert "AdvChain against STAR-1" in page and "Not established: " in page
    summary = (report / "summary.md").read_text()
    assert "R1-7B, AdvChain against base, HarmBench ASR: lower by " in summary
    assert "It is not a harm judgement." in summary


def test_the_summary_reads_in_a_terminal(report: Path) -> None:
    text = terminal_text(report / "summary.md")
    assert f"  {report}/report.html  everything on one page" in text
    assert "|" not in text and "**" not in text


def test_every_form_is_linked(report: Path) -> None:
    """Each figure and table of the page leads to its files, and they are there."""
    page = (report / "report.html").read_text()
    links = set(re.findall(r'href="((?:figures|tables)/[^"]+)"', page))
    assert {f"figures/{name}.{ending}" for name in ("tradeoff", "forest", "ratio") for ending in ("svg", "png", "pdf")} <= links
    assert {"tables/safety.csv", "tables/safety.tex", "tables/claims.csv"} <= links and all((report / link).is_file() for link in links)
    tex = (report / "tables/safety.tex").read_text()
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == 1 and "HarmBench ASR \\%" in tex and "\\textdaggerdbl{}" in tex
    assert {len(line.split(" & ")) for line in tex.split("\n") if line.endswith("\\\\")} == {len(tex.split("tabular}{")[1].split("}")[0])}


def test_cards_are_linked(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert '<a href="datasets/star1.card.md">star1</a>' in page and '<a href="checkpoints/r1/star1/seed0/README.md">r1/star1/seed0</a>' in page
    assert "checkpoints/r1/base" not in page  # not trained here


def test_figures_are_drawn(report: Path) -> None:
    for name in FIGURES:
        svg = (report / f"figures/{name}.svg").read_text()
        assert svg.count("<path") > 10
        assert (report / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (report / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_same_input_same_bytes(tmp_path: Path, report: Path) -> None:
    _, spec = make(tmp_path, tmp_path / "results")
    out = tmp_path / "results"
    assert (out / "scores.csv").read_text() == (report / "scores.csv").read_text()
    build(out, spec, scores=out / "scores.csv", paper=ROOT / "config/paper_numbers.yaml", samples=[tmp_path / "advchain.jsonl"])
    for name in ("tradeoff.svg", "forest.svg", "ratio.pdf", "snowball.png"):
        assert (out / "figures" / name).read_bytes() == (report / "figures" / name).read_bytes()


def test_a_run_without_paper_model_ratio_training_or_contrast_says_so(tmp_path: Path) -> None:
    grid = Grid(tmp_path)
    cell(grid, ("small", "base", "released"), RATES["base"])
    spec = score_spec([checkpoint("base", "released", "small")])
    score(tmp_path / "scores.csv", spec, grid.verdicts, grid.responses)
    paper = ROOT / "config/paper_numbers.yaml"
    build(tmp_path, report_spec(spec), scores=tmp_path / "scores.csv", paper=paper)
    page = (tmp_path / "report.html").read_text()
    for sentence in (
        "No model of the paper was run here, so there is nothing to set beside its numbers.",
        "No two recipes of one model differ in their T-C share: there is no ratio to plot.",
        "Training rows against ASR and ORR: No two training sets of one model differ in size alone.",
        "Every method was trained with one seed: nothing tells how far another seed would land.",
        "No two methods that are to be compared were run on one model.",
        "No training data was given.",
        "None were declared.",
    ):
        assert sentence in page, sentence
    assert (tmp_path / "tables/paper.csv").read_text().startswith("model,method,run,benchmark")
    assert len((tmp_path / "tables/paper.csv").read_text().splitlines()) == 1
    assert "No model of the paper" in (tmp_path / "tables/paper.md").read_text()
    assert (tmp_path / "figures/ratio.png").is_file()


def test_the_scripts_run_by_hand(tmp_path: Path) -> None:
    out = tmp_path / "results"
    score_json, report_json = (dumps(spec) for spec in make(tmp_path, tmp_path / "unused"))
    folders = ["--responses", tmp_path / "responses", "--verdicts", tmp_path / "verdicts"]
    run("score.py", *folders, "--out", out / "scores.csv", "--spec", score_json)
    data = ["--datasets", f"advchain={tmp_path}/advchain.jsonl", "--training", f"r1/advchain/seed0={tmp_path}/training.jsonl"]
    run("report.py", "--scores", out / "scores.csv", "--paper", ROOT / "config/paper_numbers.yaml", *data, *folders, "--out", out, "--spec", report_json)
    assert '<a href="../verdicts/r1/base/released/xstest.jsonl">' in (out / "report.html").read_text()
    failed = run("report.py", "--scores", out / "none.csv", "--paper", ROOT / "config/paper_numbers.yaml", "--out", out, "--spec", report_json, check=False)
    assert failed.returncode == 1 and "none.csv" in failed.stderr and "Traceback" not in failed.stderr


def run(name: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "scripts" / name, *map(str, args)], check=check, capture_output=True, text=True)
