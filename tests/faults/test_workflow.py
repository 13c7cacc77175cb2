"""RELIABILITY B and E over the whole workflow with real endpoints: kills at any point and full disks heal, a secret is in no file, odd folders do, nobody
else can read, names in the data lead nowhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server.launch import ApiServer, api_server
from calls import ask, teacher
from workflow import KEY_VARIABLE, ROOT, artefacts, command, config, environment, files, kill_all, repository, run, walls

CANARY = "sk-CANARY-7f3a91c0ffee-4242"
SECRETS = {
    **dict.fromkeys((KEY_VARIABLE, "HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"), CANARY),
    "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
NAMELESS = ["--unshare-user", "--uid", "54321", "--gid", "54321"]  # as in a container: a user without an account
NAMELESS += [word for name in ("LOGNAME", "USER", "LNAME", "USERNAME") for word in ("--unsetenv", name)]
ODD = "a folder; with $(touch pwned) 'quotes' äöü 思"  # B9, E5
LEADING_OUT = ["../../../pwned", "/tmp/pwned", "a/../../../pwned", "$(touch pwned)", "`touch pwned`", "pwned\n.jsonl", "~/pwned", "..", "<img src=pwned>"]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ApiServer, ApiServer]]:
    with api_server(reply="embedded", latency_seconds=0.1) as teacher, api_server(reply="verdict") as model:
        yield teacher, model


def own_data(root: Path) -> dict[str, Any]:
    """Settings of chains and prompts of our own: those of the samples, under ids that lead elsewhere."""
    for name in ("star1", "xstest"):
        rows = [json.loads(line) for line in (ROOT / f"advchain/sample/{name}.jsonl").read_text().splitlines()[: len(LEADING_OUT)]]
        kept = [
            {"id": key, "prompt": row.get("prompt") or row["question"], "response": row.get("response")} for key, row in zip(LEADING_OUT, rows, strict=True)
        ]
        lines = [json.dumps({name: value for name, value in row.items() if value}) for row in kept]
        (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    prompts = {"benchmark": "file_benign", "from": "local", "path": str(root / "xstest.jsonl"), "limit": 4}
    return {"sources": {"star1": {"loader": "file", "from": "local", "path": str(root / "star1.jsonl")}}, "benchmarks": {"xstest": prompts}}


@pytest.fixture(scope="module")
def undisturbed(servers: tuple[ApiServer, ApiServer], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Config, work folder and output of one run: in an odd place, 250 characters deep, without a home, an account or a place for temporary files,
    with secrets all around, under umask 000, on data whose ids lead elsewhere.
    """
    root = tmp_path_factory.mktemp("odd") / ODD
    settings = repository(root / "repo", *servers)
    config(settings, **own_data(root))
    folder = root / ("x" * (250 - len(str(root))))
    folder.mkdir()
    for place in (folder, settings.parent):
        (place / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    within = [*walls(read_only=[Path("/")], writable=[Path("/dev"), root]), *NAMELESS]
    before = os.umask(0)
    try:
        done = run(settings, folder, within=within, HOME="/nonexistent", TMPDIR="/tmp", **SECRETS)
    finally:
        os.umask(before)
    return settings, folder, done.stdout + done.stderr


def holding(folder: Path) -> list[Path]:
    """Files below `folder` with the canary in them, also packed; the settings files that it was planted in apart."""
    found = [path for path in files(folder) if path.name != ".env"]
    return [path for path in found if CANARY.encode() in (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())]


def test_e2_a_secret_is_in_no_file_and_was_used(undisturbed: tuple[Path, Path, str], servers: tuple[ApiServer, ApiServer]) -> None:
    _, folder, output = undisturbed
    assert all(set(server.stats()["keys"]) == {f"Bearer {CANARY}"} for server in servers)
    assert CANARY not in output
    assert not holding(folder) and len(files(folder / "results")) > 60 and len(files(folder / ".snakemake")) > 20


@pytest.mark.parametrize("tool", ["bundle --with-text --out ../run.tar.gz", "verify", "doctor", "estimate"])
def test_e2_no_tool_tells_a_secret(undisturbed: tuple[Path, Path, str], tool: str) -> None:
    settings, folder, _ = undisturbed
    name, *options = tool.split()
    line = [sys.executable, ROOT / f"scripts/{name}.py", "--config", settings, *options]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment(settings, **SECRETS, HOME="/nonexistent"))
    told = done.stdout + done.stderr
    assert done.returncode == 0 or name == "doctor", told[-3000:]
    assert told and CANARY not in told and not holding(folder.parent)


def test_e2_a_secret_is_in_no_slurm_script(undisturbed: tuple[Path, Path, str], tmp_path: Path) -> None:
    """An sbatch that writes down what it gets, and takes no job."""
    settings, asked = undisturbed[0], tmp_path / "asked.txt"
    program = tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {asked}\necho no >&2\nexit 1\n')
    program.chmod(0o755)
    options = ("--workflow-profile", str(ROOT / "profiles/slurm"), "--retries", "0", "--slurm-init-seconds-before-status-checks", "1")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = run(settings, tmp_path / "work", options=options, check=False, PATH=path, **SECRETS)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "sbatch failed" in told and CANARY not in told
    text = asked.read_text()
    assert "rewrite_chains:" in text and text.count("--wrap=") >= 2 and not holding(tmp_path)  # that job asks a teacher with a key


def test_e2_a_secret_in_a_proxys_address_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{CANARY}@127.0.0.1:9")
    error = str(ask(teacher(base_url="http://no-such-host.invalid/v1", max_retries=0), 1).error)
    assert "ProxyConnection" in error and CANARY not in error


def test_e2_a_secret_that_the_provider_sends_back_is_not_repeated(
    undisturbed: tuple[Path, Path, str], servers: tuple[ApiServer, ApiServer], tmp_path: Path
) -> None:
    """A 401 whose body quotes the key, as some do."""
    settings, _, _ = undisturbed
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {CANARY}", "code": "invalid_api_key"}})
    servers[0].control(script=[{"do": "status", "status": 401, "body": body, "times": None}])
    try:
        done = run(settings, tmp_path, "chains", check=False, **{KEY_VARIABLE: CANARY})
    finally:
        servers[0].control(script=[])
    told = done.stdout + done.stderr
    assert done.returncode == 1 and KEY_VARIABLE in told and CANARY not in told
    assert not holding(tmp_path)


def test_e5_b9_odd_folders_without_home_and_temporary_files_do(undisturbed: tuple[Path, Path, str]) -> None:
    settings, folder, _ = undisturbed
    assert len(str(folder)) >= 250 and (folder / "results/report.html").is_file()
    assert not Path("/nonexistent").exists()
    assert not [path for path in settings.parent.parent.parent.rglob("*pwned*")] and not Path("pwned").exists()


def test_e6_ids_that_lead_elsewhere_are_kept_and_lead_nowhere(undisturbed: tuple[Path, Path, str]) -> None:
    settings, folder, _ = undisturbed
    root = settings.parent.parent.parent
    for name, num in (("sources/star1", len(LEADING_OUT)), ("responses/tested/base/released/xstest", 4)):
        rows = [json.loads(line) for line in (folder / f"results/{name}.jsonl").read_text().splitlines()]
        assert all(any(key in (row.get("item_id") or row["id"]) for key in LEADING_OUT) for row in rows) and len(rows) == num
    assert {path.name for path in root.iterdir()} <= {"repo", folder.name, "star1.jsonl", "xstest.jsonl", "run.tar.gz", "run.tar.gz.sha256"}
    assert {path.name for path in folder.iterdir()} == {"results", ".snakemake", ".env"}
    assert {path.name for path in root.parent.iterdir()} == {root.name} and not Path("/tmp/pwned").exists()
    assert "<img src=pwned>" not in "".join((folder / f"results/{page}").read_text() for page in ("report.html", "explorer/index.html"))


def test_e7_nobody_else_can_read_what_was_written(undisturbed: tuple[Path, Path, str]) -> None:
    results = undisturbed[1] / "results"
    open_to_others = [path for path in [results, *results.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not open_to_others


def test_b5_b11_a_second_run_is_refused_and_sigterm_keeps_what_was_asked(
    undisturbed: tuple[Path, Path, str], servers: tuple[ApiServer, ApiServer], tmp_path: Path
) -> None:
    """SIGTERM to all processes while the teacher is asked, as a preemption does; the next run asks at most what was in flight once more."""
    settings, reference, _ = undisturbed
    servers[0].control(reset=True, latency_seconds=3.0)  # so that the stage is still at work when the second run is refused
    process = started(command(settings, tmp_path, "chains"), settings)
    wait_for_log(tmp_path / "results/logs", "chains/tc", process)
    second = run(settings, tmp_path, "chains", check=False)
    assert second.returncode == 1 and f"another run is at work in {tmp_path}: process {process.pid} on " in second.stderr and "Traceback" not in second.stderr
    while servers[0].stats()["counts"].get("requests", 0) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(20) != 0 and time.monotonic() - asked < 20
    assert not [path for path in files(tmp_path) if path.name.endswith((".tmp", ".whole"))]
    servers[0].control(latency_seconds=0.1)
    run(settings, tmp_path, "chains")
    name = "results/chains/tc.jsonl"
    assert (tmp_path / name).read_bytes() == (reference / name).read_bytes() and servers[0].stats()["asked_again"] <= 16


def test_b1_kills_at_any_point_heal(undisturbed: tuple[Path, Path, str], servers: tuple[ApiServer, ApiServer], tmp_path: Path) -> None:
    """SIGKILL to all processes, to one job, and again to all, at drawn moments of the first, the middle and the last stages; then one run to the end."""
    settings, reference, _ = undisturbed
    draw = random.Random(int(os.environ.get("ADVCHAIN_KILL_SEED", "1")))
    for number, stage in enumerate(("chains/tc", "responses", "judge")):
        line = command(settings, tmp_path)
        process = started(line, settings)
        wait_for_log(tmp_path / "results/logs", stage, process)
        time.sleep(draw.uniform(0.0, 1.0))
        if number == 1:
            assert subprocess.run(["pkill", "-9", "-s", str(process.pid), "-f", "scripts/.*[.]py"]).returncode in (0, 1)
            process.wait(120)
        else:
            kill_all(process)
        assert not list((tmp_path / "results").glob("report.html"))
    run(settings, tmp_path)
    assert artefacts(tmp_path) == artefacts(reference)
    assert not [path for path in files(tmp_path / "results") if path.name.endswith(".tmp")]


def test_b4_a_disk_that_fills_stops_the_run_in_one_paragraph_and_space_heals_it(undisturbed: tuple[Path, Path, str], tmp_path: Path) -> None:
    """The disk is filled while the first stage calls its teacher, and while the report is written. Beside that, a home that cannot be written, and a TMPDIR
    that is full (B9).
    """
    settings, reference, _ = undisturbed
    folder, home, full = tmp_path / "work", tmp_path / "home", tmp_path / "temp"
    for place in (folder, home, full):
        place.mkdir()
    line = json.dumps(command(settings, folder))
    within = walls(read_only=[home], disks={folder: 8 << 20, full: 1 << 16})
    run_it = [*within, sys.executable, ROOT / "tests/faults/full_disk.py", folder, line, "tc.log", "report.log"]
    paths = os.pathsep.join([str(settings.parent.parent), str(ROOT / "tests")])
    surroundings = environment(settings, PYTHONPATH=paths, HOME=str(home), TMPDIR=str(full))
    done = subprocess.run(run_it, capture_output=True, text=True, env=surroundings, cwd=settings.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    *stopped, healed = json.loads(done.stdout.splitlines()[-1])
    for filled, refused in zip(stopped[::2], stopped[1::2], strict=True):
        assert filled["code"] == refused["code"] == 1 and "Traceback" not in filled["told"] + refused["told"]
        told = [text["told"].strip().splitlines()[-1] for text in (filled, refused)]
        assert all(line.startswith(f"error: no space is left on the disk of {folder}: ") and "bytes are free" in line for line in told), filled["told"][-3000:]
        needed = r"append \d+ bytes to results/\S+: No space left|(write|make) results/.*: No space left on device.* \(it takes more than the [\d,]+ bytes"
        assert re.search(f"error: cannot ({needed})", filled["told"])
        assert not filled["left"] and not filled["changed"] and refused["made"] == filled["made"]
    assert healed["code"] == 0, healed["told"][-3000:]
    assert healed["made"] == {name: hashlib.sha256(data).hexdigest() for name, data in artefacts(reference).items()}
    assert not list(home.iterdir())


@pytest.mark.parametrize("place", [".", "results"])
def test_b9_a_folder_that_cannot_be_written_is_told_in_one_line(undisturbed: tuple[Path, Path, str], tmp_path: Path, place: str) -> None:
    (tmp_path / "results").mkdir()
    done = run(undisturbed[0], tmp_path, within=walls(read_only=[tmp_path / place]), check=False)
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(told) == 1 and str(tmp_path) in told[0] and "snakemake --directory FOLDER" in told[0]


def started(line: list[str], settings: Path) -> subprocess.Popen[bytes]:
    """A run in a session of its own, so that all its processes can be killed."""
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(line, env=environment(settings), cwd=settings.parent, stdout=nowhere, stderr=nowhere, start_new_session=True)


def wait_for_log(logs: Path, stage: str, process: subprocess.Popen[bytes]) -> None:
    """Until the log of a stage is there, so that its job runs."""
    end = time.monotonic() + 300
    while not [path for path in logs.rglob("*.log") if stage in str(path.relative_to(logs))]:
        assert process.poll() is None and time.monotonic() < end, f"the run ended before {stage}"
        time.sleep(0.02)
