"""A small results folder with every kind of file, written by the package's own writers: for tests of verify, clean and bundle."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advchain.config import load_config
from advchain.io import write_text
from advchain.manifests import StageTimer, make_manifest, manifest_path, rejects_path, write_manifest, write_stage
from advchain.models.folder import hash_weights
from advchain.operations.artefacts import NOT_RESULTS, is_manifest, read_artefact, walk
from advchain.operations.planned import planned_specs
from advchain.operations.verify import verify
from advchain.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests/workflow/tiny.yaml"
ROWS = 5


def tiny_plan() -> Plan:
    return Plan(load_config([TINY]))


def small_results(root: Path, plan: Plan) -> Path:
    """Write root/results as the tiny config would leave it; the rows and weights are stand-ins, the files and manifests real."""
    for name, spec in planned_specs(plan).items():
        parts = Path(name).parts
        if parts[1] in ("views", "export") or (parts[1] == "prompts" and len(parts) > 3):
            continue  # not made by this config
        _write(root / name, spec)
    training = root / "results/.work/teacher"
    training.mkdir(parents=True)
    (training / "tc.store").write_bytes(b"")
    for name in ("logs/train.log", "benchmarks/train.tsv"):
        write_text(root / "results" / name, "text\n")
    return root / "results"


def _write(manifest: Path, spec: dict[str, Any]) -> None:
    folder, name = manifest.parent, manifest.name
    folder.mkdir(parents=True, exist_ok=True)
    made = make_manifest(folder.name, spec, timer=StageTimer())
    if name == "model.json":
        for file in ("model.safetensors", "config.json", "tokenizer.json", "training.jsonl"):
            (folder / file).write_bytes(bytes(range(256)) * 4)
        write_manifest(manifest, {"weights_sha256": hash_weights(folder), "manifest": made}, [folder / "training.jsonl"])
    elif name == "scores.manifest.json":
        _with_files(manifest, made, [folder / file for file in ("scores.csv", "contrasts.csv", "drift.csv")])
    elif name == "report.manifest.json":
        _with_files(manifest, made, [folder / file for file in ("report.html", "summary.md", "tables/safety.csv", "figures/drift.svg")])
    elif name == "index.manifest.json":
        _with_files(manifest, made, [folder / "index.html", folder / "data/xstest-0.js"])
    elif name.endswith(".card.manifest.json"):
        _with_files(manifest, made, [folder / name.replace("manifest.json", "md")])
    elif name.endswith(".manifest.json"):
        output = folder / name.replace("manifest.json", "jsonl")
        assert manifest_path(output) == manifest and rejects_path(output).parent == folder
        write_stage(output, [{"id": f"{name}-{number}"} for number in range(ROWS)], stage=folder.name, spec=spec)
    else:
        write_manifest(manifest, made)


def _with_files(manifest: Path, made: dict[str, Any], files: list[Path]) -> None:
    for file in files:
        write_text(file, f"{file.name}\n" * 20)
    write_manifest(manifest, made, files)


def keeping_time(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file as a failing disk would: its time stays."""
    status = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path, draw: random.Random) -> bytes:
    """Flip one random bit, the file's time kept; return what it was."""
    old = path.read_bytes()
    bit = draw.randrange(len(old) * 8)
    keeping_time(path, lambda data: data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
    return old


def flips_missed(results: Path, num: int, seed: int = 0) -> list[Path]:
    """Flip `num` random bits in all, at most one per manifest and pass; return the files that verify did not name."""
    files = [path for path in walk(results, NOT_RESULTS) if path.stat().st_size]
    manifests = [read_artefact(path) for path in files if is_manifest(path, results)]
    owner = {path: artefact.manifest for artefact in manifests for path in (artefact.manifest, *artefact.files)}
    assert set(files) <= set(owner), "every file of a results folder belongs to a manifest"
    draw, missed, done = random.Random(seed), [], 0
    while done < num:
        drawn = {owner[path]: path for path in draw.sample(files, len(files))}
        old = {path: flip(path, draw) for path in list(drawn.values())[: num - done]}
        named = {problem.path for problem in verify(results).problems if problem.level == "FAIL"}
        missed += sorted(set(old) - named)
        done += len(old)
        for path, data in old.items():
            path.write_bytes(data)
    return missed
