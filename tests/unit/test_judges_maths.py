"""The maths grader on a golden table and on MATH-500's own solutions; a hanging comparison ends, and the next one is well."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from advchain.errors import DataError
from advchain.judges import maths
from advchain.records import Response
from advchain.specs import JudgeSpec

GOLDEN = Path(__file__).parents[1] / "golden/maths.jsonl"


def make_response(answer, gold, state="closed", thinking="", number=0):
    return Response(
        id=f"r{number}", item_id=f"i{number}", benchmark="math500", nature="benign", prompt="p", reference={"answer": gold}, sample_index=0, seed=0,
        text=thinking + answer, thinking=thinking, answer=answer, state=state, finish="stop", num_prompt_tokens=1, num_tokens=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def judge():
    judge = maths.build(JudgeSpec(version=1, name="maths", kind="maths", options={"timeout_seconds": 3}), Path())
    yield judge
    judge.close()


def test_golden_table(judge):
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    responses = [make_response(row["answer"], row["gold"], row["state"], row["thinking"], number) for number, row in enumerate(rows)]
    found = {row["name"]: verdict.label for row, verdict in zip(rows, judge.judge(responses), strict=True)}
    assert found == {row["name"]: row["label"] for row in rows}
    assert len(rows) >= 40


def test_timeout_kills_and_restarts(judge):
    judge.judge([make_response(r"\boxed{\frac{2}{4}}", r"\frac12")])
    first = judge.worker.process.pid
    start = time.monotonic()
    (verdict,) = judge.judge([make_response(r"\boxed{9^{9^{9^{9}}}}", "1")])
    assert verdict.label == "timeout" and verdict.score == 0.0 and "3 s" in verdict.detail["reason"]
    assert time.monotonic() - start < 30  # left alone, it would never end
    assert not Path(f"/proc/{first}").exists()
    assert judge.judge([make_response(r"\boxed{\frac{2}{4}}", r"\frac12")])[0].label == "right"


def test_worker_has_no_keys(judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    worker = maths.Worker(5)
    try:
        assert worker.compare("1/2", "0.5") == ("right", "")
        assert b"canary" not in Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    finally:
        worker.close()


def test_dead_worker_is_replaced(judge):
    judge.judge([make_response(r"\boxed{\frac{2}{4}}", r"\frac12")])
    subprocess.run(["kill", "-9", str(judge.worker.process.pid)], check=True)
    os.waitid(os.P_PID, judge.worker.process.pid, os.WEXITED | os.WNOWAIT)
    assert judge.judge([make_response(r"\boxed{\frac{2}{4}}", r"\frac12")])[0].label == "timeout"
    assert judge.judge([make_response(r"\boxed{\frac{2}{4}}", r"\frac12")])[0].label == "right"


def test_missing_reference_names_the_item(judge):
    response = make_response(r"\boxed{1}", "1").model_copy(update={"reference": {"solution": "1"}})
    with pytest.raises(DataError, match="item i0"):
        judge.judge([response])


def test_math500_solutions_are_right(judge, data_root):
    """Every published solution, graded as an answer against the published answer, is right."""
    rows = [json.loads(line) for line in (data_root / "eval/math500/test.jsonl").read_text(encoding="utf-8").splitlines()]
    verdicts = judge.judge([make_response(row["solution"], row["answer"], number=number) for number, row in enumerate(rows)])
    assert [(row["unique_id"], v.label) for row, v in zip(rows, verdicts, strict=True) if v.label != "right"] == []


def test_aime_answers_of_other_problems_are_wrong(judge, data_root):
    answers = [json.loads(line)["answer"] for line in (data_root / "eval/aime2024/test.jsonl").read_text(encoding="utf-8").splitlines()]
    shifted = answers[1:] + answers[:1]
    labels = [v.label for v in judge.judge([make_response(f"\\boxed{{{given}}}", str(gold)) for gold, given in zip(answers, shifted, strict=True)])]
    assert labels == ["right" if int(a) == int(b) else "wrong" for a, b in zip(answers, shifted, strict=True)]


@pytest.mark.parametrize(
    ("text", "content"),
    [(r"\boxed{a{b}c}", "a{b}c"), (r"\boxed{\}}", r"\}"), (r"\boxed{1} \boxed{2", "1"), (r"\boxed{x\boxed{y}z}", "y"), ("none", None), (r"\boxed{", None)],
)
def test_last_boxed(text, content):
    assert maths.last_boxed(text) == content


def test_last_boxed_is_fast_on_hostile_text():
    start = time.process_time()
    for text in (r"\boxed{" * 3000, "answer is " * 20000, "answer" + " " * 20000, "answer is" + " " * 20000, "answer is x" + " " * 20000 + "y"):
        maths.final_answer(text)
    assert time.process_time() - start < 2
