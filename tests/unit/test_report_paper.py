"""The paper's numbers: all of METHOD 1.5, each a possible count, and the difference to ours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from report_grid import checkpoint, report_spec, score_spec
from scipy.stats import fisher_exact

from advchain import stats
from advchain.errors import ConfigError
from advchain.report.claims import claims_table, fisher
from advchain.report.paper import PaperNumber, difference, load_paper

PAPER = Path(__file__).resolve().parents[2] / "config/paper_numbers.yaml"


def test_every_recovered_cell_is_there() -> None:
    cells = load_paper(PAPER)
    counts = Counter((number.benchmark, number.metric) for number in cells.values())
    assert counts == {
        ("HarmBench", "asr"): 6,
        ("HarmBench", "rr"): 6,
        ("StrongReject", "asr"): 8,
        ("StrongReject", "rr"): 2,
        ("WJ-AdvHarm", "asr"): 6,
        ("CoT-Hijack", "asr"): 11,
        ("CoT-Hijack", "rr"): 8,
        ("XSTest", "orr"): 6,
        ("WJ-Benign", "orr"): 6,
        ("Math500", "pass@1"): 4,
        ("AIME2024", "pass@1"): 4,
        ("LiveCodeBench", "pass@1"): 4,
    }
    assert cells["R1-7B", "AdvChain", "CoT-Hijack", "asr"].value == 9.33
    assert cells["R1-7B", "RealSafe-R1", "XSTest", "orr"].value == 66.4
    assert cells["Qwen3-4B", "base", "LiveCodeBench", "pass@1"].value == 53.03


def test_every_inferred_n_gives_the_printed_percentage() -> None:
    for key, number in load_paper(PAPER).items():
        if number.n is not None:
            assert abs(round(number.value * number.n / 100) / number.n * 100 - number.value) < 0.0051, key


def test_cells_that_do_not_fit_their_column_carry_a_note() -> None:
    cells = load_paper(PAPER)
    usual = {"HarmBench": 200, "StrongReject": 200, "WJ-AdvHarm": 300, "CoT-Hijack": 150, "XSTest": 250, "WJ-Benign": 150, "Math500": 500}
    odd = {number.value for number in cells.values() if number.benchmark in usual and number.n != usual[number.benchmark]}
    assert odd == {45.05, 4.8, 10.4, 60.6, 92.8}
    assert all(number.note for number in cells.values() if number.value in odd | {51.3, 37.6})


def test_difference_of_two_wilson_rates() -> None:
    low, high = stats.wilson(82, 150)
    gap = difference(82 / 150, low, high, PaperNumber(model="m", method="x", benchmark="b", metric="asr", value=9.33, n=150))
    assert gap.value == pytest.approx(100 * 82 / 150 - 9.33)
    assert (gap.low, gap.high) == (pytest.approx(35.7, abs=0.2), pytest.approx(53.9, abs=0.2))  # Newcombe 1998, method 10, on 82/150 and 14/150


def test_without_n_only_our_error_counts() -> None:
    number = PaperNumber(model="m", method="x", benchmark="b", metric="pass@1", value=51.3)
    gap = difference(0.5, 0.4, 0.6, number)
    assert gap == (pytest.approx(-1.3), pytest.approx(-11.3), pytest.approx(8.7))
    assert difference(0.5, None, None, number).low is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[R1-7B, base, HarmBench, asr]", r"cells\[1\]: expected \[model"),
        ("[R1-7B, base, HarmBench, rr, many, 200]", r"cells\[1\]\.value"),
        ("[R1-7B, base, HarmBench, asr, 51.0, 200]", "is given twice"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(tmp_path: Path, cell: str, message: str) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text(f"cells:\n  - [R1-7B, base, HarmBench, asr, 51.0, 200]\n  - {cell}\n")
    with pytest.raises(ConfigError, match=message):
        load_paper(path)


@pytest.mark.parametrize(
    ("reference", "model", "benchmark", "p"),
    [
        ("RealSafe-R1", "R1-7B", "CoT-Hijack", 0.21),
        ("STAR-1", "Qwen3-4B", "CoT-Hijack", 0.35),
        ("STAR-1", "R1-7B", "CoT-Hijack", 8e-18),
        ("STAR-1", "R1-7B", "HarmBench", 0.21),
        ("STAR-1", "R1-7B", "StrongReject", 0.07),
        ("STAR-1", "R1-7B", "WJ-AdvHarm", 0.004),
        ("base", "R1-7B", "XSTest", 0.81),
        ("STAR-1", "R1-7B", "XSTest", 6e-9),
    ],
)
def test_what_the_papers_n_supports(reference: str, model: str, benchmark: str, p: float) -> None:
    """The p values that METHOD 1.5 works out by hand."""
    rows = claims_table(report_spec(score_spec([checkpoint("base", "released")])), load_paper(PAPER), []).raw
    (row,) = [row for row in rows if (row["reference"], row["model"], row["benchmark"]) == (reference, model, benchmark) and row["metric"] in ("asr", "orr")]
    assert row["p"] == pytest.approx(p, rel=0.15) and row["here"] == ""
    assert row["supported"] == ("yes, AdvChain is better" if p < 0.05 else "no")


def test_fisher_is_the_textbook_one() -> None:
    for table in ((3, 10, 7, 12), (0, 8, 0, 9), (5, 5, 0, 6), (1, 200, 9, 150)):
        first, num_first, second, num_second = table
        expected = fisher_exact([[first, num_first - first], [second, num_second - second]])[1]
        assert fisher(*table) == pytest.approx(expected)
