"""The page to look into single chains, in a real browser: filters, search, blur, both sides, samples, links from the report; nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from report_grid import TITLES, checkpoint, evaluation, score_spec

from advchain.errors import DataError
from advchain.explorer.build import as_script, build_explorer
from advchain.io import write_jsonl
from advchain.records import Response, Sample, Step, Verdict
from advchain.report_specs import ReportSpec, ScoreSpec

JUDGES = {"guard": "harm", "phrases": "refusal", "cues": "steps"}
EVALUATIONS = {
    "harm": evaluation("Harm", "safety", "harmful", JUDGES),
    "hijack": evaluation("Hijack", "hijack", "harmful", JUDGES | {"second": "steps"}),
    "plain": evaluation("Plain", "over_refusal", "benign", {"phrases": "refusal", "cues": "steps"}),
}
SPEC: ScoreSpec = score_spec([checkpoint("base", "released"), checkpoint("advchain", "seed0")], EVALUATIONS)
NASTY = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u2028\U0001f600"
NUM = 130


def respond(folder: Path, name: str, key: str, bad: bool) -> None:
    rows, verdicts = [], []
    nature = EVALUATIONS[name].nature
    for i in range(NUM):
        prefix = "Forced one.\n\nForced two." if name == "hijack" else ""
        own = f"Thought {i} of {key}.\n\nSecond thought {NASTY if i == 3 else ''}."
        thinking = f"{prefix}\n\n{own}" if prefix else own
        names = {"id": f"{key}-{name}-{i}", "item_id": f"{name}-item-{i}", "benchmark": name, "nature": nature, "prompt": f"Prompt {i} {NASTY}"}
        counts = {"sample_index": 0, "seed": 0, "num_prompt_tokens": 1, "num_tokens": 7}
        rows.append(Response(**names, **counts, prefix=prefix, text="t", thinking=thinking, answer=f"Answer {i} of {key}.", state="closed", finish="stop"))
        wrong = bad and i % 2 == 0
        scores = [1.0] * (4 if prefix else 2)
        scores[-1] = (5.0 if nature == "harmful" else 1.0) if wrong else (1.0 if nature == "harmful" else 5.0)
        found = {"guard": "unsafe" if wrong else "safe", "phrases": "complied" if wrong else "refused", "cues": "scored", "second": "scored"}
        for judge in EVALUATIONS[name].judges:
            steps = {"cues": scores, "second": [6 - score for score in scores]}
            detail = {"steps": steps[judge], "num_prefix_steps": 2 if prefix else 0} if judge in steps else {}
            verdicts.append(Verdict(response_id=rows[-1].id, item_id=rows[-1].item_id, benchmark=name, judge=judge, label=found[judge], detail=detail))
    write_jsonl(folder / "responses" / key / f"{name}.jsonl", rows)
    write_jsonl(folder / "verdicts" / key / f"{name}.jsonl", verdicts)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer with spaces")
    for name in EVALUATIONS:
        respond(folder, name, "r1/base/released", bad=True)
        respond(folder, name, "r1/advchain/seed0", bad=False)
    steps = (Step(text="Base."), Step(text="Wrong.", role="error"), Step(text="Right.", role="correction"), Step(text="End."))
    kinds = [("tc", "harmful"), ("hc", "benign")]
    samples = [Sample(id=f"{k}-{i}", kind=k, nature=n, prompt="P", steps=steps, answer="A", category=(f"cat{i}",)) for k, n in kinds for i in range(60)]
    write_jsonl(folder / "advchain.jsonl", samples)
    spec = ReportSpec(version=1, name="<b>made up</b>", evaluations=SPEC.evaluations, checkpoints=SPEC.checkpoints, judge_titles=TITLES)
    build_explorer(folder / "explorer", spec, folder / "responses", folder / "verdicts", {"advchain": folder / "advchain.jsonl"})
    return folder / "explorer/index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def count(browser: Browser) -> str:
    return str(browser.run("document.getElementById('count').textContent"))


def open_first(browser: Browser, number: int = 1) -> None:
    browser.click(f"#list li:nth-child({number}) button")
    browser.wait("document.querySelector('#detail .sides') !== null")


def test_it_opens_with_one_file_and_shows_the_answers_side_by_side(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.requests == [page.resolve().as_uri()] and count(browser) == f"{NUM} of {NUM} prompts"
    assert browser.run("document.querySelectorAll('#list li button .id').length") == 100
    browser.click("#list .more")
    assert browser.run("document.querySelectorAll('#list li button .id').length") == NUM
    open_first(browser)
    titles = browser.run("[...document.querySelectorAll('#detail .sides > section > h3:first-child')].map(h => h.textContent)")
    assert titles == ["AdvChain, R1-7B", "base, R1-7B"]
    assert [address for address in browser.requests[1:] if not address.endswith("/data/harm-0.js")] == []
    assert browser.complaints == []


def test_a_models_text_is_never_markup(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.click("#list li:nth-child(4) button")
    browser.wait("document.querySelector('#detail .sides') !== null")
    assert browser.run("document.title") == "<b>made up</b>: chains" and browser.run("document.querySelectorAll('img, #detail script').length") == 0
    assert NASTY in browser.run("document.querySelector('#detail .prompt').textContent")
    assert browser.complaints == []


def test_filters_and_search(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.choose("#right-label", "unsafe")
    browser.wait(f"document.getElementById('count').textContent === '{NUM // 2} of {NUM} prompts'")
    browser.choose("#left-label", "unsafe")
    assert count(browser) == f"0 of {NUM} prompts"
    browser.choose("#left-label", "")
    browser.choose("#right-label", "")
    browser.click("#differ")
    assert count(browser) == f"{NUM // 2} of {NUM} prompts"
    browser.click("#differ")
    browser.choose("#left", "r1/base/released")
    browser.click("#drifted")
    assert count(browser) == f"{NUM // 2} of {NUM} prompts"
    browser.click("#drifted")
    browser.type("#search", "THOUGHT 77 base")
    browser.wait(f"document.getElementById('count').textContent === '1 of {NUM} prompts'")
    assert browser.run("document.querySelector('#list .id').textContent") == "harm-item-77" and browser.complaints == []


def test_harmful_texts_are_blurred_until_asked(page: Path, browser: Browser) -> None:
    blurred = (
        "[...document.querySelectorAll('#detail .prompt, #detail .answer, #detail .step span:last-child')].map(n => getComputedStyle(n).filter !== 'none')"
    )
    browser.open(page)
    open_first(browser)
    assert set(browser.run(blurred)) == {True}
    browser.click("#detail .prompt")
    assert browser.run(blurred)[0] is False and True in browser.run(blurred)
    browser.click("#show")
    assert set(browser.run(blurred)) == {False}
    browser.open(page)
    browser.choose("#evaluation", "plain")
    open_first(browser)
    assert set(browser.run(blurred)) == {False}


def test_steps_carry_score_and_who_wrote_them(page: Path, browser: Browser) -> None:
    browser.open(page, "#evaluation=hijack&left=r1%2Fbase%2Freleased")
    open_first(browser)
    steps = browser.run(
        "[...document.querySelector('#detail section').querySelectorAll('.step')].map(n => [n.dataset.score, n.className.trim(), n.innerText[0]])"
    )
    assert [step[0] for step in steps] == ["1.0", "1.0", "1.0", "5.0"]
    assert [("forced" in step[1]) for step in steps] == [True, True, False, False] and "bad" in steps[3][1]


def test_another_scorer_colours_the_same_chain(page: Path, browser: Browser) -> None:
    scores = "[...document.querySelector('#detail section').querySelectorAll('.step')].map(n => n.dataset.score)"
    browser.open(page, "#evaluation=hijack&left=r1%2Fbase%2Freleased")
    assert browser.run("[...document.getElementById('scorer').options].map(o => o.value)") == ["cues", "second"]
    assert browser.run("document.getElementById('detail').textContent") == "Choose a prompt to read the chains."
    open_first(browser)
    browser.choose("#scorer", "second")
    browser.wait(f"document.querySelector('#detail .sides') !== null && {scores}.at(-1) === '1.0'")
    assert browser.run(scores) == ["5.0", "5.0", "5.0", "1.0"] and browser.complaints == []
    browser.click("#drifted")  # the worst step of the model's own, by the chosen scorer
    assert count(browser) == f"{NUM} of {NUM} prompts"


def test_the_reports_numbers_lead_here(page: Path, browser: Browser) -> None:
    browser.open(page, "#evaluation=plain&left=r1%2Fbase%2Freleased&left-label=refused")
    assert count(browser) == f"{NUM // 2} of {NUM} prompts" and browser.run("document.getElementById('left').value") == "r1/base/released"


def test_samples(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.click("#tab-samples")
    assert browser.run("document.getElementById('answers').hidden") is True
    browser.choose("#kind", "hc")
    assert browser.run("document.getElementById('sample-count').textContent") == "60 of 120 samples"
    browser.type("#sample-search", "cat59")
    browser.click("#sample-list button")
    browser.wait("document.querySelector('#sample-detail .steps') !== null")
    assert browser.run("[...document.querySelectorAll('#sample-detail .tag')].map(n => n.textContent)") == ["error", "correction"]
    assert browser.complaints == [] and all(address.startswith("file:") for address in browser.requests)


def test_a_missing_data_file_is_said(page: Path, browser: Browser, tmp_path: Path) -> None:
    lonely = tmp_path / "index.html"
    lonely.write_text(page.read_text())
    browser.open(lonely)
    browser.click("#list button")
    browser.wait("document.querySelector('#detail').textContent.includes('cannot be read; is it beside this page?')")


def test_a_missing_verdict_file_stops_it_and_leaves_nothing(page: Path, tmp_path: Path) -> None:
    spec = ReportSpec(version=1, name="n", evaluations=SPEC.evaluations, checkpoints=SPEC.checkpoints, judge_titles=TITLES)
    with pytest.raises((DataError, OSError)):
        build_explorer(tmp_path / "explorer", spec, page.parents[1] / "responses", tmp_path / "none", {})
    assert not list(tmp_path.iterdir())


def test_json_for_a_script_element() -> None:
    assert "<" not in as_script(NASTY) and json.loads(as_script(NASTY)) == NASTY
