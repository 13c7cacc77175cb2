"""The real workflow at its smallest: chains by an endpoint, one model behind an endpoint, judged by an endpoint. No GPU, no weights, a dozen jobs.

The endpoints are tests/api_server; the repository is a folder of links with entries of our own in its catalogues.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from api_server.launch import ApiServer

ROOT = Path(__file__).resolve().parents[2]
KEY_VARIABLE = "TESTED_API_KEY"


def repository(folder: Path, server: ApiServer, model: ApiServer, **teacher: Any) -> Path:
    """Make a repository whose catalogues know the two endpoints; return the config of the smallest run."""
    folder.mkdir(parents=True)
    for name in ("advchain", "scripts", "rules", "envs", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Snakefile", folder)
    shutil.copytree(ROOT / "config", folder / "config")
    shared = {"title": "Tested", "api_key_env": KEY_VARIABLE, "max_retries": 1, "timeout_seconds": 20.0}
    add(folder, "teachers", tested=shared | {"base_url": server.base_url, "model": "embedded-teacher"} | teacher)
    add(folder, "teachers", tested_model=shared | {"base_url": model.base_url, "model": "m"})
    add(folder, "models", tested={"title": "Tested", "origin": "endpoint:tested_model", "family": "generic", "memory_gb": 1})
    add(folder, "judges", tested={"title": "Tested", "kind": "api_harm", "teacher": "tested_model"})
    return config(folder / "config/small.yaml")


def add(folder: Path, name: str, **entries: Any) -> None:
    with (folder / f"config/{name}.yaml").open("a") as file:
        file.write("\n" + yaml.safe_dump(entries))


def config(path: Path, **changes: Any) -> Path:
    """The smallest config over the embedded default beside it; `benchmarks` go over its two."""
    benchmarks: dict[str, Any] = dict.fromkeys(yaml.safe_load((path.parent / "config.yaml").read_text())["evaluation"]["benchmarks"])
    benchmarks |= {"harmbench": {"limit": 2, "judges": ["string_match", "tested", "refusal_phrases"]}, "xstest": {"limit": 2}}
    benchmarks |= changes.pop("benchmarks", {})
    small = {
        "extends": "config.yaml",
        "name": "small",
        "chains": {"tc": {"teacher": "tested", "count": 4}, "hc": None},
        "evaluation": {"benchmarks": benchmarks},
        "grid": {"main": {"models": ["tested"], "methods": ["base"]}},
    }
    path.write_text(yaml.safe_dump(small | changes))
    return path


def command(settings: Path, folder: Path, *targets: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command of a run; targets if none are given: chain sets, tables and explorer."""
    root = settings.parent.parent
    start = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), "-d", str(folder), "--cores", "2", "--configfile", str(settings)]
    return [*start, *options, "--", *(targets or ("all", "chains"))]


def environment(settings: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(settings.parent.parent), KEY_VARIABLE: "not-secret", "ADVCHAIN_GPUS": ""} | more


def run(
    settings: Path,
    folder: Path,
    *targets: str,
    options: tuple[str, ...] = (),
    within: Sequence[str | Path] = (),
    check: bool = True,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run the workflow to its end, `within` walls if there are any."""
    line = [*within, *command(settings, folder, *targets, options=options)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(settings, **more), cwd=settings.parent)
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def walls(*, read_only: Sequence[Path] = (), writable: Sequence[Path] = (), disks: Mapping[Path, int] | None = None) -> list[str | Path]:
    """A command's prefix: folders that cannot be written, parts of them that can, folders that are a disk of so many bytes. Needs no rights."""
    line: list[str | Path] = ["bwrap", "--dev-bind", "/", "/", "--die-with-parent"]
    line += [word for path in read_only for word in ("--ro-bind", path, path)]
    line += [word for path in writable for word in ("--dev-bind", path, path)]
    return line + [word for path, size in (disks or {}).items() for word in ("--size", str(size), "--tmpfs", path)]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def kill_all(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to a whole session: snakemake, its jobs, their children."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def artefacts(folder: Path) -> dict[str, bytes]:
    """What a run made, but for logs, benchmarks, stores, and what tells time: manifests, cards, and the pages made from them."""
    results = folder / "results"
    skipped = {"logs", "benchmarks", ".work", "tables", "figures", "generated", "models"}
    paths = [path for path in sorted(results.rglob("*")) if path.is_file() and path.relative_to(results).parts[0] not in skipped]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths if path.suffix in (".jsonl", ".csv") and "manifest" not in path.name}
