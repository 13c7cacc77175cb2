"""`doctor`: each check says ok, warn or FAIL with a fix; no secret is ever in what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from advchain.catalogue import CONFIG
from advchain.config import load_config
from advchain.errors import SandboxError
from advchain.judges import canary
from advchain.operations import access, doctor, machine
from advchain.operations.pages import Line, doctor_json, doctor_page
from advchain.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PAPER, DEFAULT = CONFIG / "paper.yaml", CONFIG / "config.yaml"
SECRET = "canary-5d1f0c77b0"


def plan_of(tmp_path: Path, changes: dict | None = None, base: Path = DEFAULT) -> Plan:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": str(base)} | (changes or {})))
    return Plan(load_config([path]))


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in front of the PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    if not os.environ["PATH"].startswith(str(path.parent)):
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def cards(num: int, total: int, free: int) -> str:
    return "\n".join(f'echo "NVIDIA GeForce RTX 4090, {total}, {free}, 570.86.10"' for _ in range(num))


@pytest.mark.parametrize(
    ("num", "total", "free", "levels", "fix"),
    [
        (8, 24564, 24100, ["ok"], ""),
        (8, 24564, 12000, ["warn"], "another program holds memory of card 0, 1"),
        (2, 24564, 24100, ["FAIL"], "set `gpus: 2`"),
        (8, 16376, 16000, ["ok", "FAIL"], "set `hardware`"),
    ],
)
def test_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int, total: int, free: int, levels: list[str], fix: str) -> None:
    program(tmp_path, "nvidia-smi", f'case "$1" in topo) printf " GPU0 GPU1\\nGPU0 X NS\\nGPU1 NS X\\n";; *) {cards(num, total, free)};; esac', monkeypatch)
    lines = list(machine.gpu_lines(Plan(load_config([PAPER]))))
    assert lines[-1].name == "peer-to-peer" and "do not reach" in lines[-1].text and "NCCL_P2P_DISABLE=1" in lines[-1].text
    assert [line.level for line in lines[:-1]] == levels
    assert fix in " ".join(line.fix for line in lines)


def test_no_cards_is_fine_for_a_config_without_and_told_for_one_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "exit 9", monkeypatch)
    assert [line.level for line in machine.gpu_lines(plan_of(tmp_path, {"gpus": 0}))] == ["ok"]
    assert [line.level for line in machine.gpu_lines(Plan(load_config([PAPER])))] == ["warn"]


def test_memory_and_disk_that_do_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, {"gpus": 0})
    for total, free, level in ((64, 60, "ok"), (64, 2, "warn"), (6, 5, "FAIL")):
        (tmp_path / "meminfo").write_text(f"MemTotal: {total << 20} kB\nMemAvailable: {free << 20} kB\nHugePages_Total: 0\n")
        monkeypatch.setattr(machine, "MEMORY_TOTAL", tmp_path / "meminfo")
        assert machine.memory_line(plan).level == level
    assert [line.name for line in machine.disk_lines(plan, tmp_path / "not/yet/there")] == ["disk"]


def test_slurm_with_and_without_accounting_and_without_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("sbatch", ""), ("sinfo", 'echo "gpu* 4 gpu:8"\necho "cpu 1 (null)"'), ("sacct", "exit 1")):
        program(tmp_path, name, text, monkeypatch)
    lines = list(machine.slurm_lines())
    assert "gpu* (4 nodes, gpu:8), cpu (1 node, (null))" in lines[0].text
    assert (lines[1].level, "squeue" in lines[1].fix) == ("warn", True)
    program(tmp_path, "sinfo", "exit 1", monkeypatch)
    assert [line.level for line in machine.slurm_lines()] == ["warn"]


def test_pins_that_differ_are_named() -> None:
    versions = doctor.read_pins("control") | {"": "3.11.7"}
    assert [line.level for line in doctor.role_lines("control", versions)] == ["ok"]
    assert [line.level for line in doctor.role_lines("control", versions | {"polars": versions["polars"] + "+local"})] == ["ok"]
    (line,) = doctor.role_lines("control", versions | {"polars": "0.1"})
    assert line.level == "warn" and f"polars 0.1 (pinned {versions['polars']})" in line.text
    (line,) = doctor.role_lines("control", {name: version for name, version in versions.items() if name != "pydantic"})
    assert line.level == "FAIL" and "pydantic missing" in line.text and "envs/control.txt" in line.fix


def test_a_missing_sandbox_fails_only_where_the_judge_refuses_to_go_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise SandboxError("no sandbox: `bwrap` is not on the PATH. Install bubblewrap.")

    monkeypatch.setattr(canary, "check", missing)
    (line,) = machine.sandbox_lines(plan_of(tmp_path))
    assert (line.level, line.fix) == ("warn", "Install bubblewrap.")
    without_code = {"evaluation": {"benchmarks": {"livecodebench": None}}}
    assert list(machine.sandbox_lines(plan_of(tmp_path, without_code))) == []


def test_the_sandbox_here_stops_the_canary(tmp_path: Path) -> None:
    assert [line.level for line in machine.sandbox_lines(plan_of(tmp_path))] == ["ok"]


def test_the_generate_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"evaluation": {"engine": "vllm"}}
    assert [line.level for line in doctor.generate_lines(plan_of(tmp_path, wanted))] == ["FAIL"]
    assert [line.level for line in doctor.generate_lines(plan_of(tmp_path, {"gpus": 0}))] == ["ok"]
    monkeypatch.setenv("ADVCHAIN_GENERATE_PYTHON", sys.executable)  # an environment without vLLM
    lines = list(doctor.generate_lines(plan_of(tmp_path, wanted)))
    assert lines[-1].level == "FAIL" and "No module named 'vllm'" in lines[-1].text


def test_an_environment_with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (site / "vllm.py").write_text("__version__ = '0.33.0'\n")
    for name, version in doctor.read_pins("generate-gpu").items():
        (site / f"{name}-{version}.dist-info").mkdir()
        (site / f"{name}-{version}.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv("ADVCHAIN_GENERATE_PYTHON", str(tmp_path / "venv/bin/python"))
    wanted = {"evaluation": {"engine": "vllm"}}
    lines = list(doctor.generate_lines(plan_of(tmp_path, wanted)))
    assert [line.level for line in lines] == ["ok", "ok"] and lines[1].text.startswith("0.33.0 imports in ")
    (site / "vllm.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 0.5)
    assert "not imported within" in doctor.vllm_line(tmp_path / "venv/bin/python").text


def test_local_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"harmbench": {"from": "local", "path": "${MY_DATA}/h.csv"}}
    plan = plan_of(tmp_path, {"evaluation": {"benchmarks": here}})
    monkeypatch.delenv("MY_DATA", raising=False)
    assert [(line.level, "MY_DATA" in line.text) for line in access.local_lines(plan)] == [("FAIL", True)]
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    assert [line.level for line in access.local_lines(plan)] == ["FAIL"]
    (tmp_path / "h.csv").write_text("prompt\nx\n")
    assert [line.level for line in access.local_lines(plan)] == ["ok"]


def test_a_broken_config_is_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(f"extends: {DEFAULT}\ntrain: {{epoch: 3}}\n")
    lines = doctor.examine([tmp_path / "bad.yaml"], {}, tmp_path)
    assert lines[0].level == "FAIL" and "Did you mean 'epochs'" in lines[0].text


class Hub(BaseHTTPRequestHandler):
    """Gated repositories ask for a token that was accepted; others redirect to a store that must not see the token."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_HEAD(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        gated = "Llama-Guard" in self.path
        self.send_response(403 if gated else 302)
        if not gated:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_the_paper_config_from_outside(hub: str, tmp_path: Path) -> None:
    """The whole script: gated repositories by name and page, keys by name only, the secret nowhere."""
    environment = os.environ | {"HF_ENDPOINT": hub, "ADVCHAIN_GITHUB": hub, "HF_HOME": str(tmp_path), "HF_TOKEN": SECRET, "OPENAI_API_KEY": SECRET}
    environment |= {"https_proxy": "http://127.0.0.1:9"}  # the endpoints are not asked from here
    environment.pop("DEEPSEEK_API_KEY", None)
    command = [sys.executable, str(ROOT / "scripts/doctor.py"), "--config", str(PAPER), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = {line["name"]: line for line in json.loads(done.stdout)["checks"]}
    assert lines["OPENAI_API_KEY"]["level"] == "ok" and lines["DEEPSEEK_API_KEY"]["level"] == "FAIL"
    assert lines["meta-llama/Llama-Guard-3-8B"]["level"] == "FAIL" and "accept the terms" in lines["meta-llama/Llama-Guard-3-8B"]["fix"]
    assert re.search(r"\d\d of \d\d can be read", lines["repositories"]["text"])
    assert SECRET not in done.stdout + done.stderr
    assert any(token == f"Bearer {SECRET}" for _, token in Hub.seen)
    assert not any(path == "/elsewhere" for path, _ in Hub.seen), "a redirect was followed, with the token"


def test_the_page_fits_and_counts() -> None:
    lines = [Line("Machine", "a", "ok", "word " * 60), Line("Machine", "long name", "FAIL", "broken", "mend " * 40), Line("Access", "b", "warn", "x")]
    page = doctor_page("title", lines)
    assert max(map(len, page.splitlines())) <= 100
    assert page.endswith("3 checks: 1 ok, 1 warn, 1 FAIL\n") and "\x1b" not in page
    assert json.loads(doctor_json(lines))["ok"] is False
