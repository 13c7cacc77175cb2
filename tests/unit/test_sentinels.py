"""RELIABILITY F2: a judge that says the same to everything, or anything to anything, fails the job before it judges; a judge of sound mind passes."""

from __future__ import annotations

import importlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from api_server.launch import api_server
from tiny_judge import make_judge

from advchain.catalogue import modules
from advchain.errors import DataError
from advchain.io import read_records, write_jsonl
from advchain.judges import llama_guard
from advchain.judges.base import Judge, make_verdict
from advchain.judges.refusal_phrases import find_phrase
from advchain.judges.run import judge_files
from advchain.judges.sentinels import ACTS, ANSWERS, EXPECTED, NUM_EACH, REQUEST, check_sentinels, probes
from advchain.llm.screening import has_operational_detail
from advchain.records import Response, Verdict
from advchain.specs import JudgeSpec, JudgeStageSpec, TeacherSpec

OFFLINE = ("embedded_guard", "embedded_refusal", "string_match", "refusal_phrases")


class Says(Judge):
    """A judge that says what `choose` says."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose

    def judge(self, responses: list[Response]) -> list[Verdict]:
        return [make_verdict("j", response, self.choose(response)) for response in responses]

    def close(self) -> None:
        pass


def spec(kind: str, teacher: TeacherSpec | None = None, **options: Any) -> JudgeSpec:
    return JudgeSpec(version=1, name="j", kind=kind, teacher=teacher, options=options)


def stage(folder: Path, judge: JudgeSpec, name: str = "v", answers: tuple[str, ...] = ("Sure.",)) -> Path:
    """Judge a file of made-up answers; return the verdict file."""
    values = {"benchmark": "b", "nature": "harmful", "prompt": "p", "sample_index": 0, "seed": 0, "thinking": "", "state": "closed", "finish": "stop"}
    rows = [{**values, "id": f"r{n}", "item_id": f"i{n}", "text": a, "answer": a, "num_prompt_tokens": 1, "num_tokens": 1} for n, a in enumerate(answers)]
    write_jsonl(folder / "r.jsonl", rows)
    whole = JudgeStageSpec(version=1, benchmark="b", nature="harmful", judges=(judge,))
    judge_files([(folder / "r.jsonl", folder / f"{name}.jsonl", whole)], folder / "work")
    return folder / f"{name}.jsonl"


def test_sentinels_are_twenty_of_each_and_tell_nobody_how() -> None:
    """Different texts; but for the list's numbers the compliances pass the screen that keeps operational detail out of what is forced or trained on."""
    for kind, answers in ANSWERS.items():
        found = probes(kind)
        assert len({response.text for response in found}) == NUM_EACH == len(ACTS) * len(answers)
        assert all((find_phrase(response.text) is not None) == (kind == "refusal") for response in found)
    for response in probes("compliance"):
        assert not has_operational_detail(re.sub(r"^\d\. ", "", response.text, flags=re.MULTILINE))


@pytest.mark.parametrize("measures", EXPECTED)
def test_constant_and_random_judges_fail(measures: str) -> None:
    labels = [*EXPECTED[measures].values(), "unparsed", "refused_to_judge"]
    for label in labels:
        with pytest.raises(DataError, match=r"judge j: of 20 answers that are plainly a (refusal|compliance) it called only 0 "):
            check_sentinels("j", Says(lambda _, label=label: label), measures)
    for seed in range(50):
        dice = random.Random(seed)
        with pytest.raises(DataError, match="of 20 answers"):
            check_sentinels("j", Says(lambda _, dice=dice: dice.choice(labels[:2])), measures)
    assert check_sentinels("j", Says(lambda _: "right"), "correctness") == {}


@pytest.mark.parametrize("kind", OFFLINE)
def test_the_offline_judges_pass(kind: str, tmp_path: Path) -> None:
    counts = json.loads(stage(tmp_path, spec(kind)).with_suffix(".manifest.json").read_text())["counts"]
    assert counts["sentinels"] == {"j": {"refusal": 20, "compliance": 20}}


@pytest.mark.parametrize("kind", [kind for kind, file in modules("judges").items() if file.constants["MEASURES"] in EXPECTED])
def test_no_judge_file_goes_without_them(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file: the stage tries what it builds, and a constant one judges nothing."""
    asked: list[str] = []

    def say(response: Response) -> str:
        asked.append(response.id)
        return EXPECTED[modules("judges")[kind].constants["MEASURES"]]["refusal"]

    monkeypatch.setattr(importlib.import_module(f"advchain.judges.{kind}"), "build", lambda spec, work: Says(say))
    with pytest.raises(DataError, match="plainly a compliance it called only 0"):
        stage(tmp_path, spec(kind))
    assert len(asked) == 40 and not (tmp_path / "v.jsonl").exists()


# ------------------------------------------------------------------------------------------ judges behind an endpoint


def at(url: str) -> TeacherSpec:
    return TeacherSpec(name="judge", base_url=url, model="m", max_retries=0, requests_per_minute=60_000)


def sound(text: str) -> str:
    """What a judge of harm of sound mind replies."""
    return "safe" if find_phrase(text.split("<response>\n")[1]) else "unsafe"


@pytest.mark.parametrize(("kind", "reply"), [("api_harm", "safe"), ("api_harm", "unsafe"), ("api_xstest", "2_full_refusal")])
def test_a_constant_endpoint_fails_the_job(kind: str, reply: str, tmp_path: Path) -> None:
    """In a real process over HTTP: 20 or 40 calls are made, none for the file's own answers, and the reason is one paragraph."""
    with api_server(reply=reply) as server:
        with pytest.raises(DataError, match=r"^judge j: of 20 answers [^\n]* it called only 0 [^\n]* Nothing was judged\.$"):
            stage(tmp_path, spec(kind, at(server.base_url)), answers=tuple(f"answer {n}" for n in range(30)))
        assert server.stats()["counts"]["answers"] in (20, 40)
    assert not (tmp_path / "v.jsonl").exists()


def test_a_paid_judge_buys_its_sentinels_once_per_version(tmp_path: Path, endpoint: Any) -> None:
    server = endpoint(sound)
    made = spec("api_harm", server.teacher)
    for name, calls in (("a", 41), ("b", 42)):
        verdicts = stage(tmp_path, made, name, answers=(f"answer {name}",))
        assert [v.label for v in read_records(verdicts, Verdict)] == ["unsafe"] and len(server.requests) == calls
        assert json.loads(verdicts.with_suffix(".manifest.json").read_text())["counts"]["sentinels"] == {"j": {"refusal": 20, "compliance": 20}}
    stage(tmp_path, made.model_copy(update={"version": 2}), "c", answers=("answer c",))
    assert len(server.requests) == 83, "another version of the judge is tried anew"


def test_a_random_endpoint_fails_the_job_and_is_asked_again(tmp_path: Path, endpoint: Any) -> None:
    """A failed trial is not kept: once the endpoint is mended, the same job passes."""
    dice = random.Random(1)
    server = endpoint(lambda text: dice.choice(("safe", "unsafe")))
    with pytest.raises(DataError, match="of 20 answers"):
        stage(tmp_path, spec("api_harm", server.teacher))
    server.reply = sound
    stage(tmp_path, spec("api_harm", server.teacher))


# ------------------------------------------------------------------------------------------ judges with weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Llama Guard of two layers: taught what refusals and compliances to one of the ten requests are, taught to say safe, and not taught at all."""
    shown = [(kind, REQUEST.format(act=ACTS[0]), text.format(act=ACTS[0])) for kind, texts in ANSWERS.items() for text in texts]
    prompts = {llama_guard.render_prompt(request, text): "safe" if kind == "refusal" else "unsafe\nS1" for kind, request, text in shown}
    control = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    made = {"sound": (prompts, True), "constant": ({f"{control[0]}assistant{control[1]}\n\n": "safe"}, True), "untaught": (prompts, False)}
    return {name: make_judge(tmp_path_factory.mktemp(name), "llama", replies, control, taught) for name, (replies, taught) in made.items()}


def test_a_sound_llama_guard_passes_and_is_tried_with_every_file(weights: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        counts = json.loads(stage(tmp_path, spec("llama_guard", path=str(weights["sound"])), name).with_suffix(".manifest.json").read_text())["counts"]
        assert min(counts["sentinels"]["j"].values()) >= 16
    assert not (tmp_path / "work/sentinels").exists()


@pytest.mark.parametrize("name", ["constant", "untaught"])
def test_a_llama_guard_that_learned_nothing_fails_the_job(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"judge j: of 20 answers that are plainly a (compliance|refusal) it called only \d+ "):
        stage(tmp_path, spec("llama_guard", path=str(weights[name])))
    assert not (tmp_path / "v.jsonl").exists()
