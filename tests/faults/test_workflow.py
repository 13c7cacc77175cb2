"""RELIABILITY B and E over the whole workflow with real endpoints: kills at any point heal, a secret is in no file, odd folders do, nobody else can read."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server.launch import ApiServer, api_server
from workflow import KEY_VARIABLE, artefacts, command, environment, kill_all, repository, run

CANARY = "sk-CANARY-7f3a91c0ffee-4242"
ODD = "a folder; with $(touch pwned) 'quotes' äöü 思"  # B9, E5


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ApiServer, ApiServer]]:
    with api_server(reply="embedded", latency_seconds=0.1) as teacher, api_server(reply="verdict") as model:
        yield teacher, model


@pytest.fixture(scope="module")
def undisturbed(servers: tuple[ApiServer, ApiServer], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Config, work folder and output of one run: in an odd place, 250 characters deep, without a home, with secrets all around, under umask 000."""
    root = tmp_path_factory.mktemp("odd") / ODD
    settings = repository(root / "repo", *servers)
    folder = root / ("x" * (250 - len(str(root))))
    secrets = {KEY_VARIABLE: CANARY, "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9", "WANDB_API_KEY": CANARY, "HF_TOKEN": CANARY}
    folder.mkdir(parents=True)
    before = os.umask(0)
    try:
        done = run(settings, folder, HOME="/nonexistent", NO_PROXY="127.0.0.1", XDG_CACHE_HOME=str(root / "cache"), **secrets)
    finally:
        os.umask(before)
    return settings, folder, done.stdout + done.stderr


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_e2_a_secret_is_in_no_file_and_was_used(undisturbed: tuple[Path, Path, str], servers: tuple[ApiServer, ApiServer]) -> None:
    _, folder, output = undisturbed
    assert all(set(server.stats()["keys"]) == {f"Bearer {CANARY}"} for server in servers)
    assert CANARY not in output
    holding = [path for path in files(folder) if CANARY.encode() in path.read_bytes()]
    assert not holding and len(files(folder)) > 60


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
    assert not [path for path in files(tmp_path) if CANARY.encode() in path.read_bytes()]


def test_e5_b9_odd_folders_do(undisturbed: tuple[Path, Path, str]) -> None:
    settings, folder, _ = undisturbed
    assert len(str(folder)) >= 250 and (folder / "results/report.html").is_file()
    assert not [path for path in settings.parent.parent.parent.rglob("pwned*")] and not Path("pwned").exists()


def test_e7_nobody_else_can_read_what_was_written(undisturbed: tuple[Path, Path, str]) -> None:
    results = undisturbed[1] / "results"
    open_to_others = [path for path in [results, *results.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not open_to_others


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
