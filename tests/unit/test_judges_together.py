"""Several files with the same judges in one job: what each file says is what it says alone, and nothing is loaded, tried or bought twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from judging_server import Endpoint

from advchain.errors import ConfigError
from advchain.io import write_jsonl
from advchain.judges import refusal_phrases
from advchain.judges.run import judge_files
from advchain.specs import JudgeSpec, JudgeStageSpec

OFFLINE = tuple(JudgeSpec(version=1, name=name, kind=name) for name in ("refusal_phrases", "step_cues"))


def write_responses(path: Path, answers: Sequence[str]) -> Path:
    same = {"benchmark": "b", "nature": "harmful", "prompt": "p", "sample_index": 0, "seed": 0, "thinking": "", "state": "closed", "finish": "stop"}
    rows = [{**same, "id": f"r{n}", "item_id": f"i{n}", "text": a, "answer": a, "num_prompt_tokens": 1, "num_tokens": 1} for n, a in enumerate(answers)]
    write_jsonl(path, rows)
    return path


def stage(name: str, judges: Sequence[JudgeSpec]) -> JudgeStageSpec:
    return JudgeStageSpec(version=1, benchmark=name, nature="harmful", judges=tuple(judges))


def manifest(verdicts: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(verdicts.with_suffix(".manifest.json").read_text())
    return found


def test_each_file_is_as_if_judged_alone(tmp_path: Path) -> None:
    files = {"a": ["Sure.", "I'm sorry, I can't help with that."], "b": ["I cannot help."], "empty": [], "silent": [""]}
    responses = {name: write_responses(tmp_path / f"{name}.jsonl", answers) for name, answers in files.items()}
    judge_files([(path, tmp_path / f"together/{name}.jsonl", stage(name, OFFLINE)) for name, path in responses.items()], tmp_path / "work")
    for name, path in responses.items():
        judge_files([(path, tmp_path / f"alone/{name}.jsonl", stage(name, OFFLINE))], tmp_path / "work")
        together, alone = (tmp_path / f"{folder}/{name}.jsonl" for folder in ("together", "alone"))
        assert together.read_bytes() == alone.read_bytes()
        changing = {"created", "seconds", "seal"}
        assert {k: v for k, v in manifest(together).items() if k not in changing} == {k: v for k, v in manifest(alone).items() if k not in changing}


def test_a_judge_is_built_and_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty sentinels of each kind and three files of one answer: one judge reads them all."""
    read: list[int] = []
    whole, build = refusal_phrases.RefusalPhrases.judge_answers, refusal_phrases.build
    built: list[Path] = []
    monkeypatch.setattr(refusal_phrases.RefusalPhrases, "judge_answers", lambda judge, rows: read.append(len(rows)) or whole(judge, rows))
    monkeypatch.setattr(refusal_phrases, "build", lambda spec, work: built.append(work) or build(spec, work))
    files = [(write_responses(tmp_path / f"{n}.jsonl", ["Sure."]), tmp_path / f"v{n}.jsonl", stage(str(n), OFFLINE[:1])) for n in range(3)]
    judge_files(files, tmp_path / "work")
    assert len(built) == 1 and read == [20, 20, 1, 1, 1]


def test_a_changed_or_further_file_buys_no_reply_of_the_others_again(endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    server = endpoint(lambda text: "safe" if "sorry" in text or "cannot" in text else "unsafe")
    judge = JudgeSpec(version=1, name="j", kind="api_harm", teacher=server.teacher)
    files = {name: write_responses(tmp_path / f"{name}.jsonl", [f"answer {n} of {name}" for n in range(3)]) for name in ("a", "b")}

    def asked(*names: str) -> list[str]:
        server.requests.clear()
        judge_files([(files[name], tmp_path / f"v/{name}.jsonl", stage(name, [judge])) for name in names], tmp_path / "work")
        return sorted(request["messages"][1]["content"].split("<response>\n")[1].split("\n")[0] for request in server.requests)

    assert len(asked("a", "b")) == 40 + 6  # the sentinels of a judge behind an endpoint are read once
    before = (tmp_path / "v/a.jsonl").read_bytes()
    assert asked("a", "b") == []
    write_responses(files["b"], ["answer 0 of b", "another answer"])
    files["c"] = write_responses(tmp_path / "c.jsonl", ["first of c"])
    assert asked("c", "a", "b") == ["another answer", "first of c"]
    assert (tmp_path / "v/a.jsonl").read_bytes() == before
    assert asked("b") == []  # parted from the others, as after a change of judges


def test_files_with_different_judges_are_no_job(tmp_path: Path) -> None:
    path = write_responses(tmp_path / "a.jsonl", ["Sure."])
    wanted = [(path, tmp_path / f"v{n}.jsonl", stage(str(n), OFFLINE[: n + 1])) for n in range(2)]
    with pytest.raises(ConfigError, match="have the same judges"):
        judge_files(wanted, tmp_path / "work")
