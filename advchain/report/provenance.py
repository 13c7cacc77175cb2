"""What the manifests tell: which teacher, engine and judges, what it cost, where every file came from, and whether other code made it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advchain.errors import DataError
from advchain.manifests import code_hash
from advchain.report.markup import Table


@dataclass(frozen=True)
class Manifest:
    """One stage's manifest; `path` is the manifest's own."""

    path: Path
    value: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """Name of the stage that wrote it."""
        return str(self.value.get("stage", "unknown"))

    @property
    def seconds(self) -> float:
        """Seconds of the stage, 0 where not recorded."""
        return float(self.value.get("seconds") or 0.0)

    @property
    def output(self) -> Path:
        """The file it describes, beside it; a model folder's manifest (model.json) describes the folder."""
        name = self.value.get("output", {}).get("path")
        return self.path.with_name(name) if name else self.path


def read_manifests(paths: Iterable[Path]) -> list[Manifest]:
    """Read manifests; a model.json carries its manifest inside.

    Raises:
        DataError: not JSON or not a manifest.
    """
    found = []
    for path in paths:
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable manifest ({error}). Make the stage it belongs to again.") from error
        value = value.get("manifest", value) if isinstance(value, dict) else {}
        if "stage" not in value:
            raise DataError(f"{path}: not a manifest: it names no stage. Give the .manifest.json beside a stage's output, or a model.json.")
        found.append(Manifest(Path(path), value))
    return found


def stage_table(manifests: Sequence[Manifest]) -> Table:
    """Return seconds, API answers, tokens and cost per stage."""
    stages = list(dict.fromkeys(manifest.stage for manifest in manifests))
    rows = [_stage_row(stage, [manifest for manifest in manifests if manifest.stage == stage]) for stage in stages]
    return Table(
        name="costs",
        title="Time and cost per stage",
        header=["Stage", "Jobs", "Seconds", "API answers", "API tokens", "USD"],
        rows=[[stage, str(jobs), f"{seconds:.1f}", str(answers), str(tokens), f"{usd:.4f}"] for stage, jobs, seconds, answers, tokens, usd in rows],
        columns=("stage", "jobs", "seconds", "api_answers", "api_tokens", "usd"),
        raw=[dict(zip(("stage", "jobs", "seconds", "api_answers", "api_tokens", "usd"), row, strict=True)) for row in rows],
        notes=["Seconds inside the jobs, added up; answers from the embedded teacher count as API answers and cost nothing."] if rows else [],
        empty="No manifests were given.",
        numeric=1,
        grouped=False,
    )


def _stage_row(stage: str, manifests: Sequence[Manifest]) -> tuple[str, int, float, int, int, float]:
    usage = [usage for manifest in manifests for usage in _usages(manifest.value.get("counts", {}))]
    tokens = sum(int(use.get("input_tokens", 0)) + int(use.get("output_tokens", 0)) for use in usage)
    usd = sum(float(use["usd"]) for use in usage)
    return stage, len(manifests), round(sum(m.seconds for m in manifests), 1), sum(int(use.get("answers", 0)) for use in usage), tokens, round(usd, 4)


def _usages(counts: Any) -> Iterator[Mapping[str, Any]]:
    """The client's usage figures, wherever a stage put them in its counts: known by their cost."""
    if isinstance(counts, Mapping):
        if "usd" in counts:
            yield counts
        else:
            for value in counts.values():
                yield from _usages(value)


def protocol(manifests: Sequence[Manifest], judge_titles: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return (heading, lines): teachers, training, engines and decoding, judges, packages, code."""
    found = [
        ("Teachers", _unique(line for manifest in manifests for line in _teachers(manifest))),
        ("Training", _unique(_training(manifest) for manifest in manifests if "learning_rate" in manifest.value.get("spec", {}))),
        ("Engine and decoding", _unique(line for manifest in manifests for line in _decoding(manifest))),
        ("Judges", _unique(_judge(judge, judge_titles) for manifest in manifests for judge in manifest.value.get("spec", {}).get("judges", []))),
        ("Packages", _unique(_versions(manifest) for manifest in manifests)),
        ("Code", _code(manifests)),
    ]
    return [(heading, lines) for heading, lines in found if lines]


def _unique(lines: Iterable[str]) -> list[str]:
    return [line for line in dict.fromkeys(lines) if line]


def _teachers(manifest: Manifest) -> Iterator[str]:
    spec = manifest.value.get("spec", {})
    for owner, purpose in ((spec, manifest.stage), (spec.get("attack") or {}, "attack"), *((judge, "judge") for judge in spec.get("judges", []))):
        teacher = owner.get("teacher")
        if isinstance(teacher, Mapping):
            where = "embedded, rule-based" if teacher.get("base_url") == "embedded" else teacher.get("model")
            yield f"{teacher.get('name')} ({where}), for {purpose}: {owner.get('name', spec.get('name', ''))}"


def _training(manifest: Manifest) -> str:
    spec = manifest.value["spec"]
    names = ("epochs", "batch_size", "learning_rate", "scheduler", "warmup_ratio", "weight_decay", "max_length", "precision", "deepspeed")
    return ", ".join(f"{name.replace('_', ' ')} {spec[name]}" for name in names if name in spec)


def _decoding(manifest: Manifest) -> Iterator[str]:
    spec, counts = manifest.value.get("spec", {}), manifest.value.get("counts", {})
    if not isinstance(spec.get("sampling"), Mapping):
        return
    engine, precision = (counts.get(key) or manifest.value.get(key) or spec.get(key) for key in ("engine", "precision"))
    for name, sampling in spec["sampling"].items():
        yield f"{name}: {engine} {precision}, " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in sampling.items())


def _judge(judge: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    name = str(judge.get("name"))
    options = "".join(f", {key} {value}" for key, value in (judge.get("options") or {}).items())
    return f"{titles.get(name, name)} ({judge.get('kind')} version {judge.get('version')}{options})"


def _versions(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.value.get("versions", {}).items())


def _code(manifests: Sequence[Manifest]) -> list[str]:
    """Say whether all results were made by the code that writes this report."""
    own = code_hash()
    others = sorted({f"{manifest.stage} ({manifest.value['code']})" for manifest in manifests if manifest.value.get("code") not in (None, own)})
    if not others:
        return [f"All stages and this report were made by code {own}."] if manifests else []
    return [f"This report was made by code {own}.", "Made by other code: " + ", ".join(others) + "."]


def files_table(manifests: Sequence[Manifest], root: Path) -> Table:
    """Return every file with its digest and what it was made from, so that a number can be followed back to its source."""
    shown = [(manifest, manifest.value.get("output", {})) for manifest in manifests]
    columns = ("file", "stage", "sha256", "rows", "made_from")
    rows = [
        (_shown(m.output, root), m.stage, str(output.get("sha256", "")), output.get("rows"), [_shown(Path(path), root) for path in m.value.get("inputs", {})])
        for m, output in shown
    ]
    return Table(
        name="provenance",
        title="Files, their digests and their inputs",
        header=["File", "Stage", "sha256", "Rows", "Made from"],
        rows=[[file, stage, digest[:12], "" if count is None else str(count), _few(inputs)] for file, stage, digest, count, inputs in rows],
        columns=columns,
        raw=[dict(zip(columns, (*row[:4], " ".join(row[4])), strict=True)) for row in rows],
        notes=["A table's cell is a row of scores.csv; that is counted from the verdicts, those judge the responses, and so on back to the sources."],
        empty="No manifests were given.",
        numeric=5,
        grouped=False,
        links={file: file for file, *_ in rows},
    )


def _shown(path: Path, root: Path) -> str:
    """Path relative to the report's folder, so that links work wherever the folder is moved."""
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def _few(inputs: Sequence[str]) -> str:
    more = len(inputs) - 4
    return ", ".join(inputs[:4]) + (f" and {more} more" if more > 0 else "")
