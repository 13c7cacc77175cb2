"""Samples, responses and verdicts -> a folder with index.html and data files beside it.

The page holds one short row per response (labels, number of steps, worst step); the texts lie in `data/*.js`, which the page loads when a row is
opened. Scripts, not JSON: a page that was opened from a disk may load a script beside it, but not read a file. Harmful texts are blurred until asked for.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from advchain.io import iter_records, new_folder, write_text
from advchain.manifests import make_manifest, manifest_path, write_manifest
from advchain.records import Record, Response, Sample, Verdict
from advchain.report.cells import Key, cell_keys, cell_paths
from advchain.report.grid import groups
from advchain.report_specs import ReportSpec, ScoreSpec
from advchain.steps import split_steps

log = logging.getLogger(__name__)

ITEMS_PER_FILE = 25
SAMPLES_PER_FILE = 50
PAGE = "index.html"


def build_explorer(out: Path, spec: ReportSpec, responses: Path, verdicts: Path, samples: Mapping[str, Path]) -> None:
    """Write the folder `out`, whole or not at all.

    Args:
        out: folder to make.
        spec: names and titles of checkpoints, evaluations and judges.
        responses, verdicts: folders by the results layout.
        samples: training set -> Sample file.

    Raises:
        DataError: a file is missing or a row does not fit.
    """
    keys = cell_keys(ScoreSpec(version=spec.version, evaluations=spec.evaluations, checkpoints=spec.checkpoints))
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        index = {
            "name": spec.name,
            "checkpoints": [{"key": f"{c.model}/{c.method}/{c.run}", "title": title} for c, title in _checkpoints(spec)],
            "evaluations": _evaluations(folder, spec, keys, cell_paths(responses, keys), cell_paths(verdicts, keys)),
            "samples": [_sample_set(folder, name, path) for name, path in samples.items()],
        }
        parts = {name: resources.files("advchain.explorer").joinpath(f"explorer.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
        page = Template(parts["html"]).substitute(title=html.escape(f"{spec.name}: chains"), css=parts["css"], index=as_script(index), js=parts["js"])
        write_text(folder / PAGE, page)
        manifest = make_manifest("explorer", spec.model_dump(mode="json"), samples.values())
        write_manifest(manifest_path(folder / PAGE), manifest, sorted(path for path in folder.rglob("*") if path.is_file()))
    log.info("explorer: %s", out / PAGE)


def _checkpoints(spec: ReportSpec) -> Iterator[tuple[Any, str]]:
    for group in groups(spec.checkpoints):
        for member in group.members:
            seed = f", seed {member.seed}" if len(group.members) > 1 else ""
            yield member, f"{group.method_title}, {member.model_title}{seed}"


def _evaluations(folder: Path, spec: ReportSpec, keys: Sequence[Key], responses: Mapping[Key, Path], verdicts: Mapping[Key, Path]) -> list[dict[str, Any]]:
    found = []
    for name, info in spec.evaluations.items():
        mine = {f"{key[0]}/{key[1]}/{key[2]}": key for key in keys if key[3] == name}
        items: dict[str, list[dict[str, Any]]] = {}
        for checkpoint, key in mine.items():
            judged: dict[str, list[Verdict]] = {}
            for verdict in iter_records(verdicts[key], Verdict):
                judged.setdefault(verdict.response_id, []).append(verdict)
            for response in iter_records(responses[key], Response):
                items.setdefault(response.item_id, []).append(_response(checkpoint, response, judged.get(response.id, []), info.judges, info.nature))
        judges = {judge: {"title": spec.judge_titles.get(judge, judge), "kind": kind} for judge, kind in info.judges.items()}
        rows = list(_write_items(folder, name, items, [key for key in mine]))
        found.append({"name": name, "title": info.title, "nature": info.nature, "judges": judges, "items": rows})
    return found


def _response(checkpoint: str, response: Response, verdicts: Sequence[Verdict], judges: Mapping[str, str], nature: str) -> dict[str, Any]:
    """All that is shown of one response. `badness` and `worst` are by step judge: of every step, and the highest of the model's own (5 is worst)."""
    by_judge = {verdict.judge: verdict for verdict in verdicts if verdict.judge in judges}
    scores = {judge: by_judge[judge].detail.get("steps", []) for judge, kind in judges.items() if kind == "steps" and judge in by_judge}
    badness = {judge: [round(step if nature == "harmful" else 6 - step, 2) for step in steps] for judge, steps in scores.items()}
    num_forced = len(split_steps(response.prefix))
    return {
        "checkpoint": checkpoint,
        "prompt": response.prompt,
        "request": response.request if response.request != response.prompt else "",
        "category": response.category,
        "sample": response.sample_index,
        "state": response.state,
        "finish": response.finish,
        "tokens": response.num_tokens,
        "forced": num_forced,
        "steps": split_steps(response.thinking),
        "badness": badness,
        "answer": response.answer,
        "labels": {judge: verdict.label for judge, verdict in by_judge.items() if judges[judge] != "steps"},
        "worst": {judge: round(max(steps[num_forced:]), 1) for judge, steps in badness.items() if steps[num_forced:]},
    }


def _write_items(folder: Path, name: str, items: Mapping[str, list[dict[str, Any]]], checkpoints: Sequence[str]) -> Iterator[list[Any]]:
    """Write the texts of one evaluation; yield the page's row of each item: id, file, [checkpoint, sample, labels, state, {step judge: worst}] per response."""
    names = list(items)
    for start in range(0, len(names), ITEMS_PER_FILE):
        file = f"{name}-{start // ITEMS_PER_FILE}"
        part = {item: items[item] for item in names[start : start + ITEMS_PER_FILE]}
        _write_data(folder, file, part)
        for item, rows in part.items():
            yield [item, file, [[row["checkpoint"], row["sample"], row["labels"], row["state"], row["worst"]] for row in rows]]


def _sample_set(folder: Path, name: str, path: Path) -> dict[str, Any]:
    rows = []
    for number, part in enumerate(_batches(iter_records(path, Sample))):
        file = f"samples-{name}-{number}"
        _write_data(folder, file, {sample.id: [_sample(sample)] for sample in part})
        rows += [[sample.id, file, sample.kind, sample.nature, "; ".join(sample.category)] for sample in part]
    return {"name": name, "rows": rows}


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "prompt": sample.prompt,
        "steps": [step.rendered for step in sample.steps],
        "roles": [step.role for step in sample.steps],
        "answer": sample.answer,
        "teacher": sample.teacher,
        "source": sample.source,
    }


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == SAMPLES_PER_FILE:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_data(folder: Path, file: str, rows: Mapping[str, Any]) -> None:
    write_text(folder / "data" / f"{file}.js", f"loaded({as_script(file)}, {as_script(rows)});\n")


def as_script(value: Any | Record) -> str:
    """Return JSON that may stand inside a script element: nothing in a model's text can close it."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
