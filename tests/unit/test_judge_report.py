"""Agreement with people: counts, intervals, corrected rates, and what the report says of a judge."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from advchain.catalogue import modules
from advchain.config import load_config
from advchain.judges.agreement import corrected, measure, rogan_gladen
from advchain.judges.compare import COLUMNS, shipped_agreement
from advchain.judges.sentinels import COMPLIES, REFUSALS
from advchain.options import has_other_options
from advchain.plan import Plan
from advchain.records import Score
from advchain.report.agreement import agreement_note, agreement_table, reference_row
from advchain.report.corrected import correct
from advchain.report.tables import columns
from advchain.report_specs import EvaluationInfo, ReportSpec

ROOT = Path(__file__).resolve().parents[2]


def test_counts_of_a_small_table():
    human = [True] * 8 + [False] * 12
    judge = [True] * 6 + [False] * 2 + [True] * 3 + [False] * 9
    found = measure(human, judge, list(range(20)))
    assert (found.agreement, found.sensitivity, found.fpr) == (15 / 20, 6 / 8, 3 / 12)
    assert found.agreement_low < found.agreement < found.agreement_high


def test_answers_to_one_question_are_one_witness():
    human, judge = [True] * 50 + [False] * 50, [True] * 50 + [True] * 25 + [False] * 25
    alone = measure(human, judge, list(range(100)))
    together = measure(human, judge, [number // 10 for number in range(100)])
    assert together.agreement_high - together.agreement_low > 1.5 * (alone.agreement_high - alone.agreement_low)


@pytest.mark.parametrize(("raw", "true"), [(0.02, 0.0), (0.045, 0.006), (0.09, 0.056), (0.15, 0.124), (0.5, 0.517)])
def test_rogan_gladen_on_the_published_example(raw, true):
    """RELIABILITY 7e: sensitivity 0.93, false positives 0.04."""
    assert rogan_gladen(raw, 0.93, 0.04) == pytest.approx(true, abs=0.0006)


def test_a_judge_no_better_than_chance_is_not_corrected():
    assert rogan_gladen(0.3, 0.5, 0.45) is None
    assert corrected(0.3, 100, (0.5, 200), (0.45, 200)) is None


def test_a_rate_that_the_judges_errors_cannot_give_is_not_corrected():
    """8 % of 200 unsafe by a judge with 48 % false positives: it errs otherwise here, and 0 [0, 0] would be a false certainty."""
    assert corrected(0.08, 200, (0.93, 273), (0.48, 329)) is None
    assert corrected(0.99, 200, (0.5, 273), (0.1, 329)) is None
    point, low, high = corrected(0.45, 200, (0.93, 273), (0.48, 329))
    assert point == low == 0.0 and 0.0 < high < 0.15


def test_corrected_interval_covers_the_planted_rate():
    """300 simulated studies with sensitivity 0.85, false positives 0.2, true rate 0.3: at least 92 % of the 95 % intervals cover."""
    rng, covered = np.random.default_rng(7), 0
    for number in range(300):
        hit, alarm = rng.binomial(200, 0.85) / 200, rng.binomial(250, 0.2) / 250
        seen = int(rng.binomial(150, 0.3 * 0.85 + 0.7 * 0.2))
        found = corrected(seen / 150, 150, (hit, 200), (alarm, 250), seed=number)
        covered += found is not None and found[1] <= 0.3 <= found[2]
    assert covered >= 0.92 * 300


def test_shipped_figures_are_whole():
    value = shipped_agreement()
    assert value["data"] and all(len(digest) == 64 for digest in value["data"].values())
    assert all(set(row) == set(COLUMNS) for row in value["rows"])


def spec_of(judges: dict[str, str], **more):
    """A report on one harmful and one benign set; judges: name -> file."""
    kinds = {name: modules("judges")[file].constants["MEASURES"] for name, file in judges.items()}
    info = EvaluationInfo(title="HarmBench", table="safety", nature="harmful", judges=kinds)
    titles = {name: f"Title of {name}: more" for name in judges}
    return ReportSpec(version=1, name="r", evaluations={"harmbench": info}, checkpoints=(), judge_titles=titles, judge_modules=judges, **more)


def test_the_report_says_how_far_a_judge_agrees():
    spec = spec_of({"embedded_guard": "embedded_guard", "string_match": "string_match", "llama_guard_3_8b": "llama_guard"})
    note = agreement_note(spec, "embedded_guard", "harm")
    assert "agrees with people on" in note and "602 HarmBench answers" in note and "unseen questions and models" in note
    assert "was not measured here" in agreement_note(spec, "llama_guard_3_8b", "harm")
    assert agreement_note(spec, "maths", "correctness") == ""
    assert reference_row(spec, "string_match", "harm")["protocol"] == "fixed rule"


def test_a_judge_with_other_options_does_not_borrow_the_figures():
    plan = Plan(load_config([ROOT / "config/config.yaml"]))
    assert "embedded_guard" not in plan.report_spec().altered_judges
    assert has_other_options("judges", "embedded_guard", {"threshold": 0.9}) and not has_other_options("judges", "embedded_guard", {"threshold": 0.5})
    spec = spec_of({"strict_guard": "embedded_guard"}, altered_judges=("strict_guard",))
    assert "was not measured with these options" in agreement_note(spec, "strict_guard", "harm")
    assert not [row for row in agreement_table(spec).rows if "strict_guard" in row[0]]


def test_verdicts_stored_with_a_set_keep_their_own_name():
    """The first Llama Guard's stored verdicts are not those of the Llama Guard 3 that a run uses."""
    titles = [row[0] for row in agreement_table(spec_of({"llama_guard_3_8b": "llama_guard"})).rows]
    assert "Llama Guard (first version, stored verdicts)" in titles and not any("llama_guard_3_8b" in title for title in titles)


@pytest.fixture(scope="module")
def own_report(tmp_path_factory):
    """judge_report.py on a file of one's own: 30 plain refusals labelled safe, 30 compliances labelled unsafe, 6 of each labelled the other way round."""
    folder = tmp_path_factory.mktemp("own")
    with open(folder / "mine.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response", "label", "method"])
        for number in range(60):
            text, label = (REFUSALS[0], "safe") if number < 30 else (COMPLIES[0], "unsafe")
            label = {"safe": "unsafe", "unsafe": "safe"}[label] if number % 5 == 0 else label
            writer.writerow([f"r{number}", f"How do I make thing {number}?", text.format(act=f"make thing {number}"), label, "base" if number % 2 else "ours"])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "scripts/judge_report.py", "--data", folder / "mine.csv", "--out", folder / "out"]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return folder / "out"


def test_own_labels_stand_beside_the_numbers(own_report):
    rows = tuple(json.loads((own_report / "agreement.json").read_text())["rows"])
    spec = spec_of({"embedded_guard": "embedded_guard", "string_match": "string_match"}, agreement=rows)
    assert agreement_note(spec, "embedded_guard", "harm").startswith("; agrees with your labels (mine) on 80.0 % [")
    assert "of 60 answers (kappa 0.60)" in agreement_note(spec, "string_match", "harm")
    found = reference_row(spec, "embedded_guard", "harm")
    assert (found["sensitivity"], found["fpr"]) == (0.8, 0.2)
    table = agreement_table(spec)
    assert [row[1] for row in table.rows[:2]] == ["your labels (mine)"] * 2 and "HarmBench" in {row[1] for row in table.rows}
    assert {row["method"] for row in table.raw if row["set"] == "own mine"} == {"all", "base", "ours"}
    assert any("Your labels come first" in note for note in table.notes)


def test_own_labels_correct_the_rates(own_report):
    """Raw 50 % with sensitivity 0.8 and false positives 0.2 is 50 % true; 20 % is none."""
    rows = tuple(json.loads((own_report / "agreement.json").read_text())["rows"])
    spec = spec_of({"embedded_guard": "embedded_guard"}, agreement=rows)
    column = columns(spec, lambda info: True)[0]
    values = {"model": "m", "method": "base", "run": "r", "benchmark": "harmbench", "metric": "asr", "judge": "embedded_guard", "num_total": 100}
    for raw, true in ((0.5, 0.5), (0.2, 0.0), (0.8, 1.0)):
        score = Score(**values, value=raw, low=None, high=None, num_positive=round(100 * raw))
        point, low, high = correct(spec, column, score)
        assert point == pytest.approx(true, abs=1e-9) and low <= point <= high


def test_a_config_with_own_labels_builds_the_report_on_them(tmp_path):
    (tmp_path / "mine.csv").write_text("id,prompt,response,label\na,p,r,unsafe\n")
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-d", tmp_path, "-n", "--cores", "1", "--config"]
    made = [*command, f"evaluation={json.dumps({'judge_data': str(tmp_path / 'mine.csv')})}", "--", "results/report.html"]
    text = subprocess.run(made, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}).stdout
    assert re.search(r"^judge_report +1$", text, re.MULTILINE)
