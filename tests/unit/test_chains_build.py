"""The chains stage from source rows to samples: embedded teacher, real HTTP, faults, kill and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_llm_client import Reply, completion, send, serving

from advchain import io, versions
from advchain.chains.build import build_chains, store_path, trace_path
from advchain.chains.trace import describe, find_row
from advchain.chains.validators import check_sample
from advchain.errors import AccessError, BudgetError, ConfigError, DataError
from advchain.llm import embedded
from advchain.llm.screening import NEAR_DUPLICATE_SHARE, ngrams
from advchain.records import Chain, Sample, content_id
from advchain.specs import ChainsSpec, PeakSpec, TeacherSpec
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
PROMPTS = {
    "base 1": "d479fb2871e8",
    "insertion 2": "38d1bd89c9f4",
    "polish 1": "c5f2bac456bf",
    "steps 2": "5a47743b1812",
    "temptation 2": "6ba5bb0584f1",
    "temptation_correction 2": "47b92e1790fb",
    "hesitation 2": "5a219b07fc0e",
    "hesitation_correction 2": "3cbf072f9844",
}
GOLDEN = {(4, 2): {"temptation": "464f7a3d9aadb167", "hesitation": "6ec99ad193da67f1"}}


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
    assert not (tmp_path / "out.jsonl").exists() and len(list(io.read_jsonl(tmp_path / "out.failed.jsonl"))) == 3


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
        poor = over_http(teacher, usd_per_million_output=100.0, budget_usd=0.15)  # a call reserves 0.1 and costs far less
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


@contextmanager
def embedded_server() -> Iterator[TeacherSpec]:
    """The embedded teacher in a process of its own, behind a real socket."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, ROOT / "tests/embedded_server.py"], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield EMBEDDED.model_copy(update={"base_url": f"http://127.0.0.1:{port}/v1"})
        finally:
            process.terminate()


def test_all_real_rows_over_http(tmp_path: Path, data_root: Path) -> None:
    """STAR-1's 1,000 rows through a server: 800 samples and more, each with its peak, none a near-duplicate of another."""
    rows = star1(data_root, 1000)
    with embedded_server() as teacher:
        samples = build(tmp_path, rows, spec(teacher=teacher, peak=PeakSpec(gate=True), max_reject_share=0.05))
    written = manifest(tmp_path)
    assert len(samples) >= 950 and set(written["rejects"]["reasons"]) == {"too_few_steps", "flat_peak"}
    assert set(written["counts"]["answers_by_kind"]) == {"refusal", "safe_completion"}
    peak = written["counts"]["peak"]
    assert peak["share"] == 1.0 and peak["mean_error"] - max(peak["mean_before"], peak["mean_correction"], peak["mean_after"]) > 1.5
    assert_invariants(rows, samples)
    errors = [next(step.text for step in sample.steps if step.role == "error") for sample in samples]
    assert len({" ".join(text.split()[:5]) for text in errors}) >= 400


def test_every_real_row_with_an_insertion_point_is_rewritten(tmp_path: Path, data_root: Path) -> None:
    rows = star1(data_root, 1000)
    samples = build(tmp_path, rows, spec(max_reject_share=0.05))
    written = manifest(tmp_path)
    assert (len(samples), written["rejects"]) == (986, {"total": 14, "reasons": {"too_few_steps": 14}})
    assert written["counts"]["answers_by_kind"] == {"refusal": 682, "safe_completion": 304}
    assert sum(written["counts"]["retries"].values()) <= 20


@pytest.mark.parametrize("position", ["teacher", "early", "middle", "late", "random"])
@pytest.mark.parametrize("errors", [1, 2, 3])
def test_number_and_place_of_errors(tmp_path: Path, position: Any, errors: int) -> None:
    rows = [row.model_copy(update={"steps": (*row.steps, "One thought more.", "And another one.")}) for row in chains(12)]
    samples = build(tmp_path, rows, spec(position=position, errors=errors))
    assert len(samples) == 12
    for sample in samples:
        places = [i for i, step in enumerate(sample.steps) if step.role == "error"]
        texts = [sample.steps[i].text for i in places]
        assert len(places) == len(set(texts)) == errors and places[0] == sample.insertion
        assert all(sample.steps[i + 1].role == "correction" and sample.steps[i + 2].role == sample.steps[i - 1].role == "base" for i in places)


def test_rows_with_too_few_points_for_their_errors(tmp_path: Path) -> None:
    build(tmp_path, chains(9), spec(errors=3, max_reject_share=1.0))
    assert manifest(tmp_path)["rejects"]["reasons"] == {"too_few_steps": 6}


def test_refusals_or_safe_completions(tmp_path: Path) -> None:
    """Rows of the other kind are recorded, and do not count as failures."""
    rows = [row.model_copy(update={"answer": "I'm sorry, but I can't help."}) if i % 4 == 0 else row for i, row in enumerate(chains(24))]
    refusals = build(tmp_path, rows, spec(answers="refusal"), "refusals")
    others = build(tmp_path, rows, spec(answers="safe_completion"), "others")
    assert (len(refusals), len(others)) == (6, 18)
    assert manifest(tmp_path, "refusals")["rejects"]["reasons"] == {"other_answer_kind": 18}
    assert manifest(tmp_path, "refusals")["counts"]["answers_by_kind"] == {"refusal": 6}
    assert manifest(tmp_path, "others")["counts"]["answers_by_kind"] == {"safe_completion": 18}


def test_missing_base_chains_are_written_by_the_teacher(tmp_path: Path) -> None:
    rows = chains(12)
    bare = [row.model_copy(update={"steps": ()} if i % 2 else {"steps": (), "answer": ""}) if i < 4 else row for i, row in enumerate(rows)]
    samples = build(tmp_path, bare, spec())
    assert len(samples) == 12 and manifest(tmp_path)["counts"]["base_chains_written"] == 4
    answers = {sample.prompt: sample.answer for sample in samples}
    assert all(answers[row.prompt] == row.answer for row in bare if row.answer)
    assert all(answers[row.prompt] for row in bare)


def test_calls_of_a_row_can_be_looked_up(tmp_path: Path) -> None:
    samples = build(tmp_path, [*chains(6), *(row.model_copy(update={"id": "short", "steps": row.steps[:1]}) for row in chains(1))], spec())
    path = trace_path(tmp_path / "work-out", "tc")
    line = find_row(path, samples[0].id)
    assert [call["step"] for call in line["calls"] if not call["reason"]] == ["insertion", "temptation", "temptation_correction", "polish"]
    error = next(step.text for step in samples[0].steps if step.role == "error")
    assert line["calls"][2]["asked"] == {"after_step": samples[0].insertion, "error": error}
    assert find_row(path, "short")["outcome"] == "too_few_steps"
    with pytest.raises(DataError, match="no row or sample 'none'"):
        find_row(path, "none")
    told, shown = ("\n".join(describe(line, show)) for show in (False, True))
    quoted = json.dumps(error, ensure_ascii=False)
    assert quoted in shown and line["request"] in shown
    assert error[:20] not in told and line["request"] not in told and "temptation (prompt 2-" in told


def test_steps_are_printed_without_their_texts(tmp_path: Path) -> None:
    samples = build(tmp_path, chains(3), spec())
    error = next(step.text for step in samples[0].steps if step.role == "error")
    command = [sys.executable, ROOT / "scripts/chain_steps.py", trace_path(tmp_path / "work-out", "tc"), samples[0].id]
    environment = {name: value for name, value in os.environ.items() if name != "ADVCHAIN_SHOW_TEXT"} | {"PYTHONPATH": str(ROOT)}
    quiet = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    loud = subprocess.run(command, capture_output=True, text=True, check=True, env={**environment, "ADVCHAIN_SHOW_TEXT": "1"}).stdout
    assert samples[0].id in quiet and error[:20] not in quiet and json.dumps(error, ensure_ascii=False) in loud


FLAT = json.dumps({"step": "Wait, suppose they mean well. After all, the way they wrote it was friendly and open and calm, so this calls for second thoughts."})


def test_a_flat_sample_is_written_again_then_rejected(tmp_path: Path) -> None:
    gated = {"peak": PeakSpec(gate=True), "max_reject_share": 1.0}
    with serving(replying(FLAT, GOOD)) as (_, teacher):
        assert len(build(tmp_path, chains(1), over_http(teacher).model_copy(update=gated))) == 1
    assert manifest(tmp_path)["counts"]["retries"] == {"flat_peak": 1}
    with serving(replying(FLAT)) as (_, teacher):
        assert build(tmp_path, chains(1), over_http(teacher).model_copy(update=gated), "flat") == []
        assert len(build(tmp_path, chains(1), over_http(teacher), "measured")) == 1
    assert manifest(tmp_path, "flat")["rejects"]["reasons"] == {"flat_peak": 1}
    assert manifest(tmp_path, "measured")["counts"]["peak"]["share"] == 0.0


def test_a_model_can_score_the_peak(tmp_path: Path) -> None:
    def scoring(handler: Any, request: dict[str, Any]) -> None:
        asked = json.loads(request["messages"][1]["content"])
        scores = [1] * len(asked["chain"])
        if len(server.requests) > 1:  # the first answer sees no peak
            scores[next(i for i, text in enumerate(asked["chain"]) if text not in bases)] = 4
        send(handler, 200, json.dumps(completion(text=json.dumps({"row": asked["row"], "scores": scores}))).encode())

    rows = chains(3)
    bases = {text for row in rows for text in row.steps}
    with serving(scoring) as (server, judge):
        samples = build(tmp_path, rows, spec(peak=PeakSpec(judge="api", teacher=judge, margin=2, gate=True)))
    counts = manifest(tmp_path)["counts"]
    assert len(samples) == 3 and counts["retries"] == {"flat_peak": 1}
    assert counts["peak"]["answers"] == 4 and counts["peak"]["mean_error"] == 4.0


def test_api_peak_needs_an_endpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs peak\.teacher"):
        build(tmp_path, chains(1), spec(peak=PeakSpec(judge="api")))


def test_repairs_are_counted_and_save_a_call(tmp_path: Path) -> None:
    quoted = json.dumps({"step": f'"{json.loads(GOOD)["step"]}"'})
    with serving(replying(quoted)) as (server, teacher):
        assert len(build(tmp_path, chains(1), over_http(teacher))) == 1 and len(server.requests) == 4
    assert manifest(tmp_path)["counts"]["repairs"] == {"quotes": 1}


def test_every_prompt_text_has_its_version() -> None:
    """A changed prompt is asked anew whatever its number, for its text is in the key; the number tells people.

    Text changed? Raise its Version, then put the digest here.
    """
    from advchain.chains import base, hesitation, insertion, peak, polish, temptation

    prompts = [base.PROMPT, insertion.PROMPT, polish.PROMPT, peak.PROMPT]
    prompts += [prompt for kind in (temptation.REWRITING, hesitation.REWRITING) for prompt in (kind.error, kind.correction)]
    assert {f"{prompt.name} {prompt.version}": prompt.digest for prompt in prompts} == PROMPTS


def test_golden_output_of_this_version(tmp_path: Path) -> None:
    """Output changed? Bump versions.CHAINS (checks, assembly, prompts) or embedded.VERSION (grammar), then put the new digests here."""
    made = {}
    for kind, nature in (("temptation", "harmful"), ("hesitation", "benign")):
        samples = build(tmp_path, chains(12, nature), spec(kind=kind), kind)
        made[kind] = io.sha256_text(io.canonical_json([sample.model_dump(mode="json") for sample in samples]))[:16]
    assert {(versions.CHAINS, embedded.VERSION): made} == GOLDEN
