"""`verify` on a small results folder: silent when nothing is wrong, and each planted fault told with its file and what makes it again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_results import ROOT, TINY, flips_missed, keeping_time, tiny_plan

from advchain.manifests import seal_holds, write_manifest
from advchain.operations.artefacts import NOT_RESULTS, is_manifest, walk
from advchain.operations.pages import again_command, verification_page
from advchain.operations.planned import differing, planned_specs
from advchain.operations.verify import Problem, verify
from advchain.store import Store, make_key

VERDICTS = "verdicts/smollm2-135m/base/released/xstest.jsonl"


@pytest.fixture
def results(finished_small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_small, tmp_path / "results"))


def only(results: Path) -> Problem:
    problems = verify(results).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_a_whole_folder_has_no_problems_and_no_drift(finished_small: Path) -> None:
    found = verify(finished_small, planned_specs(tiny_plan()))
    assert found.problems == () and not found.failed
    assert found.num_manifests > 20 and found.num_bytes > 10_000


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data[: len(data) // 2], "has 2 of 5 rows"),
        (lambda data: b"", "is empty"),
        (lambda data: data[:20] + bytes([data[20] ^ 4]) + data[21:], "another sha256"),
    ],
)
def test_cut_emptied_and_flipped_with_their_time_kept(results: Path, change: Callable[[bytes], bytes], what: str) -> None:
    keeping_time(results / VERDICTS, change)
    problem = only(results)
    assert (problem.level, problem.path, problem.target) == ("FAIL", results / VERDICTS, results / VERDICTS)
    assert what in problem.what


def test_a_changed_reject_file_is_found_and_its_output_asked_for(results: Path) -> None:
    path = results / VERDICTS.replace(".jsonl", ".rejects.jsonl")
    path.write_text('{"id": "x"}\n')
    assert (only(results).path, only(results).target) == (path, results / VERDICTS)


def test_deleted_output_and_deleted_manifest(results: Path) -> None:
    (results / VERDICTS).unlink()
    assert "is missing" in only(results).what
    shutil.copy(results / VERDICTS.replace("base/released", "advchain/seed2002"), results / VERDICTS)
    (results / VERDICTS.replace(".jsonl", ".manifest.json")).unlink()
    found = verify(results).problems
    assert {problem.target for problem in found} == {results / VERDICTS} and all("no manifest" in problem.what for problem in found)


def test_an_edited_manifest_is_told(results: Path) -> None:
    manifest = results / VERDICTS.replace(".jsonl", ".manifest.json")
    manifest.write_text(manifest.read_text().replace('"rows": 5', '"rows": 6'))
    assert "seal" in only(results).what and only(results).target == results / VERDICTS
    manifest.write_text(manifest.read_text()[:-40])
    assert only(results).path == manifest


def test_half_written_files_of_a_killed_job_and_those_of_a_running_one(results: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f".a.jsonl.{gone.pid}.tmp", f".model.{gone.pid}.tmp/model.safetensors", f".b.jsonl.{os.getpid()}.tmp"):
        (results / "chains" / name).parent.mkdir(exist_ok=True)
        (results / "chains" / name).write_text("half")
    found = verify(results)
    assert [problem.level for problem in found.problems] == ["warn", "warn"] and not found.failed
    assert all(str(gone.pid) in str(problem.path) for problem in found.problems)


def test_a_time_in_the_future(results: Path) -> None:
    ahead = time.time() + 7200
    os.utime(results / VERDICTS, (ahead, ahead))
    problem = only(results)
    assert "2.0 hours ahead" in problem.what and problem.advice == f"touch {results / VERDICTS}"


def test_an_output_made_from_another_input_than_is_there(results: Path) -> None:
    path = results / VERDICTS.replace(".jsonl", ".manifest.json")
    value = {key: item for key, item in json.loads(path.read_text()).items() if key not in ("files", "seal")}
    source = "results/responses/smollm2-135m/base/released/xstest.jsonl"
    write_manifest(path, value | {"inputs": {source: "0" * 64}}, [results / VERDICTS.replace(".jsonl", ".rejects.jsonl")])
    problem = only(results)
    assert problem.path == results / VERDICTS and "another responses/" in problem.what


def test_code_drift_and_config_drift_are_told_apart(results: Path) -> None:
    planned = planned_specs(tiny_plan())
    name = "results/" + VERDICTS.replace(".jsonl", ".manifest.json")
    planned[name] = {**planned[name], "version": 99}
    train = "results/checkpoints/smollm2-135m/advchain/seed2002/model.json"
    planned[train] = {**planned[train], "weight_decay": 0.5}
    found = verify(results, planned)
    told = {problem.path.name: problem.what for problem in found.problems}
    assert "code drift" in told["xstest.jsonl"] and "version 3 -> 99" in told["xstest.jsonl"]
    assert told["model.json"] == "config drift: weight_decay"
    assert not found.failed


def test_a_damaged_line_of_a_store_is_named(results: Path) -> None:
    path = results / ".work/responses/base/direct.store"
    with Store(path) as store:
        for number in range(3):
            store.put(make_key(number=number), {"text": "x" * 50})
    assert verify(results).problems == ()
    keeping_time(path, lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert only(results).path == path and "line 2" in only(results).what


def test_files_of_others_are_told_and_no_fault(results: Path) -> None:
    (results / "notes.txt").write_text("mine")
    assert (only(results).level, only(results).path) == ("warn", results / "notes.txt")
    (results / "tables/mine.csv").write_text("a\n1\n")
    assert {problem.path.name for problem in verify(results).problems if problem.level == "FAIL"} == {"mine.csv"}


def test_a_folder_of_an_earlier_version_is_one_warning(results: Path) -> None:
    for path in [path for path in walk(results, NOT_RESULTS) if is_manifest(path, results)]:
        value = json.loads(path.read_text())
        path.write_text(json.dumps({key: item for key, item in value.items() if key not in ("files", "seal")}, indent=2))
    found = verify(results)
    assert [problem.level for problem in found.problems] == ["warn"] and "carry no seal" in found.problems[0].what


def test_one_thousand_random_bit_flips_are_all_found(results: Path) -> None:
    assert flips_missed(results, 1000) == []
    assert verify(results).problems == ()


def test_a_seal_holds_for_the_very_bytes_only(tmp_path: Path) -> None:
    path = tmp_path / "x.manifest.json"
    write_manifest(path, {"number": 1e-5, "zeros": "0" * 64})
    text = path.read_text()
    assert seal_holds(text)
    assert seal_holds(text.replace("1e-05", "1E-05")) is False
    assert seal_holds(text.replace("0" * 64, "1" + "0" * 63, 1)) is False
    assert seal_holds(json.dumps({"a": 1})) is None


def test_differing_places_are_named() -> None:
    old = {"a": {"b": [1, {"c": 2}]}, "d": [1], "same": 0}
    assert list(differing(old, {"a": {"b": [1, {"c": 3}]}, "d": [1, 2], "same": 0, "new": 1})) == ["a.b[1].c", "d", "new"]


def test_the_page_says_what_to_run(results: Path) -> None:
    keeping_time(results / VERDICTS, lambda data: data[:30])
    found = verify(results)
    page = verification_page(found, [TINY])
    assert again_command(found, [TINY]) in page
    assert again_command(found, [TINY]) == f"snakemake --cores all --directory {results.parent} --configfile {TINY} -R results/{VERDICTS}"
    assert all(len(line) <= 100 for line in page.splitlines() if "/" not in line)


def test_the_script_tells_by_its_exit_code(results: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts/verify.py"), "--config", str(TINY), "--results", str(results), *more]
        return subprocess.run(command, capture_output=True, text=True)

    (results / "report.html").write_text("other")
    told = run("--json")
    assert told.returncode == 1 and json.loads(told.stdout)["problems"][0]["target"].endswith("report.html")
    assert run("--results", str(results / "none")).stderr.startswith("\nerror: there is no folder")
