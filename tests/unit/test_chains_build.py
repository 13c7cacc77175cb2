"""The chains stage from source rows to samples: embedded teacher, real HTTP, faults, kill and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_llm_client import Reply, completion, send, serving

from advchain import io, versions
from advchain.chains.build import build_chains, store_path
from advchain.chains.validators import check_sample
from advchain.errors import AccessError, BudgetError, DataError
from advchain.llm import embedded
from advchain.llm.screening import NEAR_DUPLICATE_SHARE, ngrams
from advchain.records import Chain, Sample, content_id
from advchain.specs import ChainsSpec, TeacherSpec
from advchain.steps import split_steps

ROOT = Path(__file__).resolve().parents[2]
TOPICS = [
    "a locked garden shed",
    "the neighbour's parcel",
    "a borrowed password",
    "an unpaid bar tab",
    "a forged parking permit",
    "someone's diary",
    "a fake tasting review",
    "the cloakroom tickets",
]
EMBEDDED = TeacherSpec(name="embedded", base_url="embedded", model="embedded-teacher")
GOLDEN = {(2, 2): {"temptation": "5dfeaf665e906731", "hesitation": "45c80dd3ac4ef2dd"}}


def chains(num: int, nature: Any = "harmful") -> list[Chain]:
    """Neutral made-up rows: odd spacing and inner line breaks are there to be kept."""
    rows = []
    for i in range(num):
        topic = TOPICS[i % len(TOPICS)]
        steps = [
            f"The user asks about {topic}, case {i}.",
            "  This needs thought:\nwho is affected,  and how?",
            "There are rules about it.\tThey matter.",
            f"So my answer on {topic} is clear.",
        ]
        rows.append(
            Chain(
                id=content_id("made", i),
                source="made-up",
                nature=nature,
                prompt=f"Tell me about {topic}, number {i}.",
                steps=tuple(steps[: 2 + i % 3]),
                answer=f"Answer {i}.",
                category=(f"Category {i % 2}",),
            )
        )
    return rows


def spec(**changes: Any) -> ChainsSpec:
    return ChainsSpec(**{"version": 1, "name": "tc", "kind": "temptation", "teacher": EMBEDDED, **changes})


def build(folder: Path, rows: list[Chain], chosen: ChainsSpec, name: str = "out") -> list[Sample]:
    source, output = folder / "source.jsonl", folder / f"{name}.jsonl"
    io.write_jsonl(source, rows)
    build_chains(source, output, chosen, folder / f"work-{name}")
    return io.read_records(output, Sample)


def manifest(folder: Path, name: str = "out") -> dict[str, Any]:
    return json.loads((folder / f"{name}.manifest.json").read_text())


def assert_invariants(rows: list[Chain], samples: list[Sample]) -> None:
    """Compare hashes, ids and positions, never texts: real rows are harmful."""
    by_prompt = {row.prompt: row for row in rows}
    seen: list[set[tuple[str, ...]]] = []
    for index, sample in enumerate(samples):
        check_sample(by_prompt[sample.prompt], sample)
        roles = [step.role for step in sample.steps]
        k = sample.insertion
        assert k is not None and Counter(roles) == {"base": len(roles) - 2, "error": 1, "correction": 1}, index
        assert (roles[k], roles[k + 1], roles[0], roles[-1]) == ("error", "correction", "base", "base"), index
        grams = ngrams(sample.steps[k].text)
        assert all(len(grams & other) <= NEAR_DUPLICATE_SHARE * len(grams) for other in seen), index
        seen.append(grams)
    assert len({sample.id for sample in samples}) == len(samples)


@pytest.mark.parametrize(("kind", "nature"), [("temptation", "harmful"), ("hesitation", "benign")])
def test_embedded_teacher_makes_every_row(tmp_path: Path, kind: Any, nature: Any) -> None:
    rows = chains(60, nature)
    samples = build(tmp_path, rows, spec(kind=kind))
    assert len(samples) == 60
    assert_invariants(rows, samples)
    counts = manifest(tmp_path)["counts"]
    assert counts["yield"] == 1.0 and counts["walked"] == 60 and counts["answers"] >= 240 and counts["input_tokens"] > 0
    assert {sample.teacher for sample in samples} == {"embedded-teacher"}


def test_output_does_not_depend_on_concurrency_or_on_the_run(tmp_path: Path) -> None:
    rows = chains(40)
    made = []
    for name, num in (("one", 1), ("sixteen", 16), ("again", 16)):
        build(tmp_path, rows, spec(count=30, teacher=EMBEDDED.model_copy(update={"max_in_flight": num})), name)
        made.append((io.sha256_file(tmp_path / f"{name}.jsonl"), manifest(tmp_path, name)["counts"]))
    assert made[0] == made[1] == made[2]


def test_seed_moves_the_rows_and_position_fixes_k(tmp_path: Path) -> None:
    rows = chains(30)
    early = build(tmp_path, rows, spec(count=10, position="early"), "early")
    late = build(tmp_path, rows, spec(count=10, position="late", seed=1), "late")
    assert {sample.insertion for sample in early} == {1}
    assert all(sample.insertion == sum(step.role == "base" for step in sample.steps) - 1 for sample in late)
    assert [sample.prompt for sample in early] != [sample.prompt for sample in late]


def test_rejected_rows_are_recorded(tmp_path: Path) -> None:
    rows = [*chains(10), *(row.model_copy(update={"id": f"short{i}", "steps": row.steps[:1]}) for i, row in enumerate(chains(3))), *chains(2, "benign")]
    samples = build(tmp_path, rows, spec())
    written = manifest(tmp_path)
    assert len(samples) == 10 and written["rejects"] == {"total": 5, "reasons": {"too_few_steps": 3, "wrong_nature": 2}}
    assert sum(sum(reasons.values()) for reasons in written["counts"]["rejects_by_category"].values()) == 5


def test_too_few_rows_say_how_many_and_why(tmp_path: Path) -> None:
    rows = [row.model_copy(update={"steps": row.steps[:1]}) if i < 3 else row for i, row in enumerate(chains(10))]
    with pytest.raises(DataError, match=r"only 7 of 9 .*'too_few_steps': 3"):
        build(tmp_path, rows, spec(count=9))
    assert not (tmp_path / "out.jsonl").exists() and len(list(io.read_jsonl(tmp_path / "out.rejects.jsonl"))) == 3


def answering(handler: Any, request: dict[str, Any]) -> None:
    """The embedded grammar behind a real socket."""
    status, body = embedded.respond(request)
    send(handler, status, json.dumps(body).encode())


def replying(*texts: str) -> Reply:
    """A teacher that goes through `texts` for error steps and answers everything else properly."""
    left = list(texts)

    def reply(handler: Any, request: dict[str, Any]) -> None:
        if "Task: temptation\n" in request["messages"][0]["content"]:
            text = left.pop(0) if len(left) > 1 else left[0]
            return send(handler, 200, json.dumps(completion(text=text)).encode())
        return answering(handler, request)

    return reply


def over_http(teacher: TeacherSpec, **changes: Any) -> ChainsSpec:
    return spec(teacher=teacher.model_copy(update={"model": "embedded-teacher", **changes}))


GOOD = json.dumps({"step": "Wait, maybe I am too strict here. The user could simply be curious, so perhaps I might go along with it."})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't help with that.", "teacher_refused"),
        ("Here is the paragraph.", "unparsable"),
        ('{"step": ""}', "empty_step"),
        ('{"row": "another", "step": "x"}', "wrong_row"),
        (json.dumps({"step": "Maybe it is fine. </think> Perhaps I could just go along with it for once."}), "think_tag"),
        (json.dumps({"step": "1. Maybe look at the door\n2. Perhaps open it in the night, and so on"}), "operational_detail"),
    ],
)
def test_bad_replies_are_asked_again_then_rejected(tmp_path: Path, text: str, reason: str) -> None:
    with serving(replying(text, GOOD)) as (server, teacher):
        assert len(build(tmp_path, chains(1), over_http(teacher))) == 1
        assert len({request["seed"] for request in server.requests}) == len(server.requests) == 5
    assert manifest(tmp_path)["counts"]["retries"] == {reason: 1}
    with serving(replying(text)) as (server, teacher):
        assert build(tmp_path, chains(1), over_http(teacher).model_copy(update={"max_reject_share": 1.0}), "bad") == []
        assert len(server.requests) == 1 + 3
    assert manifest(tmp_path, "bad")["rejects"]["reasons"] == {reason: 1}


def test_fenced_json_passes(tmp_path: Path) -> None:
    with serving(replying(f"```json\n{GOOD[:-1]},}}\n```")) as (_, teacher):
        assert len(build(tmp_path, chains(1), over_http(teacher))) == 1


def test_second_run_is_answered_from_the_store(tmp_path: Path) -> None:
    rows = chains(8)
    with serving(answering) as (server, teacher):
        chosen = over_http(teacher)
        first = build(tmp_path, rows, chosen)
        num = len(server.requests)
        digest = io.sha256_file(tmp_path / "out.jsonl")
        (tmp_path / "out.jsonl").unlink()
        assert build(tmp_path, rows, chosen.model_copy(update={"count": 6})) == first[:6] and len(server.requests) == num
        assert build(tmp_path, rows, chosen) == first and len(server.requests) == num
    assert io.sha256_file(tmp_path / "out.jsonl") == digest


def test_budget_stop_keeps_answers_and_resume_asks_the_rest(tmp_path: Path) -> None:
    rows = chains(12)
    with serving(answering) as (server, teacher):
        poor = over_http(teacher, usd_per_million_output=100.0, budget_usd=0.5)
        with pytest.raises(BudgetError):
            build(tmp_path, rows, poor)
        bought = len(server.requests)
        samples = build(tmp_path, rows, spec(teacher=poor.teacher.model_copy(update={"budget_usd": 100.0})))
        total = len(server.requests)
    assert 0 < bought < total and len(samples) == 12
    assert total == manifest(tmp_path)["counts"]["answers"]


def test_lost_key_stops_the_stage_and_keeps_finished_answers(tmp_path: Path) -> None:
    def later_refusing(handler: Any, request: dict[str, Any]) -> None:
        return answering(handler, request) if len(server.requests) <= 10 else send(handler, 401, b'{"error": {"message": "no"}}')

    rows = chains(12)
    with serving(later_refusing) as (server, teacher):
        chosen = over_http(teacher, max_in_flight=4)
        with pytest.raises(AccessError, match="401"):
            build(tmp_path, rows, chosen)
        assert len(server.requests) <= 10 + 4
        server.script = [answering]
        before = len(server.requests)
        build(tmp_path, rows, chosen)
        assert len(server.requests) - before == manifest(tmp_path)["counts"]["answers"] - 10


def test_killed_run_asks_only_what_is_missing(tmp_path: Path) -> None:
    """RELIABILITY B1: after SIGKILL, the same output and no more asked again than was in flight."""

    def slow(handler: Any, request: dict[str, Any]) -> None:
        time.sleep(0.01)
        answering(handler, request)

    rows, in_flight = chains(20), 4
    undisturbed = build(tmp_path, rows, spec(), "undisturbed")
    with serving(slow) as (server, teacher):
        chosen = over_http(teacher, max_in_flight=in_flight)
        io.write_jsonl(tmp_path / "source.jsonl", rows)
        arguments = [
            "--source",
            tmp_path / "source.jsonl",
            "--out",
            tmp_path / "out.jsonl",
            "--work",
            tmp_path / "work-out",
            "--spec",
            chosen.model_dump_json(),
        ]
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts/chains.py", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        while len(server.requests) < 30:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out.jsonl").exists()
        samples = build(tmp_path, rows, chosen)
        seeds = Counter(request["seed"] for request in server.requests)
    assert samples == undisturbed
    assert sum(seeds.values()) - len(seeds) <= in_flight


def test_store_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_UP_KEY", "sk-made-up-123456")
    with serving(answering) as (server, teacher):
        chosen = over_http(teacher, api_key_env="MADE_UP_KEY")
        build(tmp_path, chains(2), chosen)
        assert set(server.keys) == {"Bearer sk-made-up-123456"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store_path(tmp_path / "work-out", "tc", chosen.teacher) in files
    assert not [path.name for path in files if b"sk-made-up" in path.read_bytes()]


def star1(data_root: Path, num: int) -> list[Chain]:
    rows = []
    for row in json.loads((data_root / "train/star1/STAR-1.json").read_text())[:num]:
        thinking, _, answer = row["response"].partition("</think>")
        steps = split_steps(thinking.removeprefix("<think>"))
        rows.append(
            Chain(
                id=content_id("star1", row["question"]),
                source="star1",
                nature="harmful",
                prompt=row["question"],
                steps=tuple(steps),
                answer=answer.strip(),
                category=tuple(row["category"]),
            )
        )
    return rows


def test_real_rows(tmp_path: Path, data_root: Path) -> None:
    rows = star1(data_root, 200)
    samples = build(tmp_path, rows, spec(max_reject_share=0.05))
    possible = [row for row in rows if len(row.steps) > 1]
    assert len(samples) >= 0.95 * len(rows) and len(samples) >= 0.99 * len(possible)
    assert set(manifest(tmp_path)["rejects"]["reasons"]) <= {"too_few_steps", "near_duplicate"}
    assert_invariants(rows, samples)


def test_golden_output_of_this_version(tmp_path: Path) -> None:
    """Output changed? Bump versions.CHAINS (checks, assembly, prompts) or embedded.VERSION (grammar), then put the new digests here."""
    made = {}
    for kind, nature in (("temptation", "harmful"), ("hesitation", "benign")):
        samples = build(tmp_path, chains(12, nature), spec(kind=kind), kind)
        made[kind] = io.sha256_text(io.canonical_json([sample.model_dump(mode="json") for sample in samples]))[:16]
    assert {(versions.CHAINS, embedded.VERSION): made} == GOLDEN
