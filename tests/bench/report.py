"""Seconds and memory of scoring and reporting 1e6 and 1e7 verdict rows, and what the pages weigh and ask for; prints one JSON object last.

Made-up verdicts: 5 models x 6 methods x 8 evaluations, three judges each (harm, refusal, steps), two samples per item. The explorer is made of 20,000
responses with chains of eight steps and opened in headless Chromium; `first_paint_ms` is the browser's own figure. `python tests/bench/report.py 1e6` for less.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parents[2]
CORES = min(4, len(os.sched_getaffinity(0)))  # as the rules
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

from advchain.explorer.build import build_explorer  # noqa: E402
from advchain.io import write_jsonl  # noqa: E402
from advchain.report_specs import CheckpointInfo, EvaluationInfo, ReportSpec, ScoreSpec  # noqa: E402

MODELS, METHODS, EVALUATIONS = 5, ("base", "star1", "safechain", "unsafechain", "no_injection", "advchain"), 8
HARM = {"guard": "harm", "phrases": "refusal", "cues": "steps"}


def specs(num_models: int = MODELS, num_evaluations: int = EVALUATIONS) -> tuple[ScoreSpec, ReportSpec]:
    """Return the specs of a made-up grid."""
    infos = {}
    for number in range(num_evaluations):
        table = ("safety", "hijack", "over_refusal")[number % 3]
        nature = "benign" if table == "over_refusal" else "harmful"
        judges = {"phrases": "refusal", "cues": "steps"} if nature == "benign" else HARM
        infos[f"set{number}"] = EvaluationInfo.model_validate({"title": f"Set {number}", "table": table, "nature": nature, "judges": judges})
    checkpoints = tuple(
        CheckpointInfo(model=f"m{model}", method=method, run="r", model_title=f"Model {model}", method_title=method, seed=None if method == "base" else 0)
        for model in range(num_models)
        for method in METHODS
    )
    titles = {"guard": "Guard", "phrases": "Phrases", "cues": "Cues"}
    return (
        ScoreSpec(version=1, evaluations=infos, checkpoints=checkpoints),
        ReportSpec(version=1, name="bench", evaluations=infos, checkpoints=checkpoints, judge_titles=titles),
    )


def write_grid(folder: Path, spec: ScoreSpec, num_rows: int) -> int:
    """Write about `num_rows` verdicts and their responses; return how many verdicts there are."""
    cells = [(info, name) for info in spec.checkpoints for name in spec.evaluations]
    per_cell = num_rows // sum(len(spec.evaluations[name].judges) for _, name in cells)
    draw, total = random.Random(0), 0
    for info, name in cells:
        evaluation = spec.evaluations[name]
        ids = [f"r{i}" for i in range(per_cell)]
        items = [f"i{i // 2}" for i in range(per_cell)]
        rows = []
        for judge, kind in evaluation.judges.items():
            labels = {"harm": ("unsafe", "safe"), "refusal": ("refused", "complied"), "steps": ("scored", "scored")}[kind]
            for response, item in zip(ids, items, strict=True):
                detail = {"steps": [draw.choice((1.0, 2.0, 2.0, 3.5, 4.5)) for _ in range(8)], "num_prefix_steps": 2} if kind == "steps" else {}
                label = labels[draw.random() < 0.7]
                rows.append({"response_id": response, "item_id": item, "benchmark": name, "judge": judge, "label": label, "score": None, "detail": detail})
        total += len(rows)
        place = Path(info.model) / info.method / info.run / f"{name}.jsonl"
        for kind_of in ("verdicts", "responses"):
            (folder / kind_of / place).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / "verdicts" / place, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        responses = {"id": ids, "item_id": items, "state": "closed", "finish": "stop", "num_tokens": 100, "thinking": "one two three"}
        pl.DataFrame(responses).write_ndjson(folder / "responses" / place)
    return total


def measure(num_rows: int) -> dict[str, Any]:
    """Score and report a grid by the project's own scripts; seconds, CPU seconds (which other work on the machine moves less), and the largest memory."""
    spec, report = specs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_grid(folder, spec, num_rows)
        os.sync()  # what was just made is not still being written while the report is timed
        data = ["--responses", folder / "responses", "--verdicts", folder / "verdicts"]
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run("score.py", *data, "--processes", CORES, "--out", folder / "scores.csv", "--spec", spec.model_dump_json())
        scored = time.monotonic() - start
        counted = ["--scores", folder / "scores.csv", "--paper", ROOT / "config/paper_numbers.yaml"]
        run("report.py", *counted, "--processes", CORES, "--out", folder, "--spec", report.model_dump_json())
        seconds = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times = {"seconds": round(seconds, 1), "score_seconds": round(scored, 1), "cpu_seconds": round(cpu, 1)}
        return {"rows": written, **times, "peak_gb": round(after.ru_maxrss / 1e6, 2), **look(folder / "report.html")}


def explorer(num_responses: int = 20_000) -> dict[str, Any]:
    """Make the page of single chains for this many responses, and open it."""
    _, spec = specs(num_models=1, num_evaluations=3)
    words = [f"word{i}" for i in range(4000)]
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = [(info, evaluation) for info in spec.checkpoints for evaluation in spec.evaluations]
        for info, evaluation in cells:
            place = Path(info.model) / info.method / info.run / f"{evaluation}.jsonl"
            nature, judges = spec.evaluations[evaluation].nature, spec.evaluations[evaluation].judges
            responses, verdicts = [], []
            for i in range(num_responses // len(cells)):
                thinking = "\n\n".join(" ".join(draw.choices(words, k=45)) for _ in range(8))
                names = {"id": f"r{i}", "item_id": f"i{i}", "benchmark": evaluation, "nature": nature, "prompt": " ".join(draw.choices(words, k=20))}
                counts = {"sample_index": 0, "seed": 0, "num_prompt_tokens": 1, "num_tokens": 500, "state": "closed", "finish": "stop", "text": ""}
                responses.append({**names, **counts, "thinking": thinking, "answer": " ".join(draw.choices(words, k=80))})
                for judge, kind in judges.items():
                    label = {"harm": "safe", "refusal": "refused", "steps": "scored"}[kind]
                    detail = {"steps": [2.0] * 8, "num_prefix_steps": 0} if kind == "steps" else {}
                    verdicts.append({"response_id": f"r{i}", "item_id": f"i{i}", "benchmark": evaluation, "judge": judge, "label": label, "detail": detail})
            write_jsonl(folder / "responses" / place, responses)
            write_jsonl(folder / "verdicts" / place, verdicts)
        start = time.monotonic()
        build_explorer(folder / "explorer", spec, folder / "responses", folder / "verdicts", {})
        seconds = time.monotonic() - start
        data = sum(path.stat().st_size for path in (folder / "explorer/data").iterdir())
        return {"seconds": round(seconds, 1), "data_mb": round(data / 1e6, 1), **look(folder / "explorer/index.html")}


def look(page: Path) -> dict[str, Any]:
    """Open a page: its size, requests beyond its own folder, complaints, and when something was painted first."""
    with Browser() as browser:
        browser.open(page)
        browser.wait("performance.getEntriesByName('first-contentful-paint').length > 0")
        paint = browser.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        outside = [address for address in browser.requests if not address.startswith(page.parent.resolve().as_uri())]
        found = {"external_requests": len(outside), "console_errors": len(browser.complaints)}
    return {"html_mb": round(page.stat().st_size / 1e6, 2), "first_paint_ms": round(paint), **found}


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / script, *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    sizes = sys.argv[1:] or ["1e6", "1e7"]
    found: dict[str, Any] = {f"rows_{size}": measure(round(float(size))) for size in sizes}
    found["explorer_20000"] = explorer()
    pages = found.values()
    total = {f"seconds_{size}": found[f"rows_{size}"]["seconds"] for size in sizes}
    total |= {name: sum(page[name] for page in pages) for name in ("external_requests", "console_errors")}
    total["html_mb"] = max(page["html_mb"] for page in pages)
    print(json.dumps(total | found))


if __name__ == "__main__":
    main()
