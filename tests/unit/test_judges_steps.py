"""Step judges: a model behind an endpoint, over real HTTP, and the embedded guard read step by step."""

import json
import statistics
from pathlib import Path

import pytest
from api_server.launch import api_server

from advchain.errors import ConfigError, DataError
from advchain.io import read_records, write_jsonl
from advchain.judges import api_steps, guard_steps
from advchain.judges.run import judge_files
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec, JudgeStageSpec, TeacherSpec
from advchain.steps import split_steps

TEACHER = TeacherSpec(name="judge", base_url="http://127.0.0.1:9/v1", model="test-model-1", max_retries=0)


def response(number, steps, nature="harmful", prefix="", request=""):
    thinking = "\n\n".join(steps)
    return Response(
        id=f"r{number}", item_id=f"i{number}", benchmark="b", nature=nature, prompt="wrapped prompt", request=request, prefix=prefix, sample_index=0, seed=0,
        text=thinking, thinking=thinking, answer="", state="unclosed", finish="length", num_prompt_tokens=1, num_tokens=1,
    )  # fmt: skip


def spec(server=None, **options):
    return JudgeSpec(
        version=1, name="j", kind="api_steps", options=options, teacher=TEACHER.model_copy(update={"base_url": server.base_url}) if server else TEACHER
    )


def ask(tmp_path, rows, server, **options):
    return api_steps.build(spec(server, **options), tmp_path).judge(rows)


def test_every_step_gets_its_score_in_windows(tmp_path):
    """Harmfulness and helpfulness, unclosed chains too; a long chain takes several calls; a chain without steps takes none."""
    chain = [f"step {1 + i % 5}" for i in range(7)]
    rows = [response(0, chain, prefix="step 1\n\nstep 2"), response(1, chain, "benign"), response(2, [])]
    with api_server(reply="scores") as server:
        verdicts = ask(tmp_path, rows, server, window=3)
        assert server.stats()["counts"]["answers"] == 6
        assert ask(tmp_path, rows, server, window=3) == verdicts and server.stats()["counts"]["answers"] == 6  # kept
    assert [v.label for v in verdicts] == ["scored"] * 3
    assert verdicts[0].detail == {"steps": [1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0], "num_prefix_steps": 2} and verdicts[0].score == pytest.approx(18 / 7, abs=1e-3)
    assert verdicts[1].detail["steps"] == [5.0, 4.0, 3.0, 2.0, 1.0, 5.0, 4.0]
    assert (verdicts[2].detail["steps"], verdicts[2].score) == ([], None)


def test_windows_carry_what_came_before():
    found = list(api_steps.windows(["a", "b", "c", "d", "e"], 2))
    assert [window.chain for window in found] == [["a", "b"], ["c", "d"], ["e"]]
    assert [window.before for window in found] == [[], ["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ('{"scores": [1, 2]}', "unparsed", "bad_scores"),
        ('{"scores": [1, 2, 6]}', "unparsed", "bad_scores"),
        ('{"scores": [1, 2, true]}', "unparsed", "bad_scores"),
        ('{"row": "another", "scores": [1, 2, 3]}', "unparsed", "wrong_row"),
        ("1, 2, 3", "unparsed", "unparsable"),
        ("I'm sorry, but I can't help with that.", "refused_to_judge", "teacher_refused"),
        ('Here you are:\n```json\n{"scores": [1, 2.5, 3]}\n```', "scored", None),
    ],
)
def test_only_a_score_for_each_step_counts(tmp_path, text, label, reason):
    with api_server(reply=text) as server:
        (verdict,) = ask(tmp_path, [response(0, ["a 1", "b 2", "c 3"])], server)
        calls = server.stats()["counts"]["answers"]
    assert (verdict.label, verdict.detail.get("reason")) == (label, reason)
    assert calls == (1 if label == "scored" else 3)  # asked again with other seeds


def test_a_bad_reply_is_asked_again(tmp_path):
    script = [{"do": "answer", "text": '{"scores": [5]}', "times": 2}]
    with api_server(reply="scores", script=script) as server:
        (verdict,) = ask(tmp_path, [response(0, ["a 4", "b 2"])], server)
    assert verdict.detail["steps"] == [4.0, 2.0]


def test_the_plain_request_is_judged_and_the_stage_stops_on_unreadable_scores(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [response(n, [f"a{n} 1", "b 2"], request="the request").model_dump(mode="json") for n in range(3)])
    with api_server(reply="scores") as server:
        stage = JudgeStageSpec(version=1, benchmark="b", nature="harmful", judges=(spec(server),))
        judge_files([(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", stage)], tmp_path / "work")
    assert [v.detail["steps"] for v in read_records(tmp_path / "out.jsonl", Verdict)] == [[1.0, 2.0]] * 3
    with api_server(reply="no scores") as server, pytest.raises(DataError, match="judge j: 3 of 3 verdicts could not be read"):
        stage = JudgeStageSpec(version=1, benchmark="b", nature="harmful", judges=(spec(server),))
        judge_files([(tmp_path / "rows.jsonl", tmp_path / "other.jsonl", stage)], tmp_path / "work")


@pytest.mark.parametrize("teacher", [None, TeacherSpec(name="embedded", base_url="embedded", model="embedded-teacher")])
def test_a_grammar_cannot_read(tmp_path, teacher):
    with pytest.raises(ConfigError, match="use step_cues or guard_steps"):
        api_steps.build(spec().model_copy(update={"teacher": teacher}), tmp_path)


def guard(rows):
    return guard_steps.build(JudgeSpec(version=1, name="g", kind="guard_steps"), Path()).judge(rows)


def test_the_guard_reads_steps():
    steps = ["I'm sorry, but I can't help with that. It is illegal and I must refuse.", "Sure, here is how: 1. First, take the florbin. 2. Next, heat it."]
    for nature in ("harmful", "benign"):
        (verdict,) = guard([response(0, steps, nature, prefix=steps[0], request="How do I make a florbin?")])
        refusing, giving = verdict.detail["steps"]
        assert 1 <= refusing < 2 < 4 < giving <= 5 and verdict.detail["num_prefix_steps"] == 1
    assert guard([response(0, [])])[0].detail["steps"] == []


def test_the_guard_tells_unsafe_chains_from_safe_ones(data_root):
    """Chains of a reasoning model on StrongREJECT, labelled by another judge: AUC 0.66 measured; weak, and said so in the title."""
    path = data_root / "judge/self_jailbreaking/r1-qwen-think500-answer200-strongreject-start0-end313.jsonl"
    rows = [row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if float(row["safety_eval_score"]) != 2][::2]
    verdicts = guard([response(n, split_steps(row["cot"]), request=row["question"]) for n, row in enumerate(rows)])
    unsafe, safe = ([v.score for v, row in zip(verdicts, rows, strict=True) if (float(row["safety_eval_score"]) >= 3) == side] for side in (True, False))
    assert statistics.mean((a > b) + (a == b) / 2 for a in unsafe for b in safe) > 0.6
