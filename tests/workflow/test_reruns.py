"""docs/RERUNS.md is what Snakemake's planner says: each change of its table, planned over a finished folder.

`python tests/workflow/test_reruns.py` writes the table anew (remarks are kept); read what it changed before you keep it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import planner
import pytest

from advchain import catalogue, chat, entries, versions
from advchain.llm import embedded

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "tests/workflow/reruns.yaml"
PAGE = ROOT / "docs/RERUNS.md"
ORDER = [
    *("source", "rewrite_chains", "mix_dataset", "compared_benchmark", "contamination", "contamination_table", "dataset_card", "fetch_model", "train"),
    *("prompts", "attack", "attack_again", "generate", "collect_responses", "view_responses", "judge", "score", "report", "explorer"),
]


@contextmanager
def version(name: str) -> Iterator[None]:
    """One stage's VERSION, one higher."""
    with mock.patch.object(versions, name, getattr(versions, name) + 1):
        yield


@contextmanager
def file_version(folder: str, name: str) -> Iterator[None]:
    """The VERSION of one benchmark, attack, judge or source file, one higher."""
    known = catalogue.modules(folder)
    with mock.patch.dict(known, {name: replace(known[name], version=known[name].version + 1)}):
        yield


@contextmanager
def entry(name: str, key: str, **changes: Any) -> Iterator[None]:
    """One entry of a catalogue under config/, with other fields."""
    with mock.patch.dict(catalogue.catalogue(name), {key: catalogue.catalogue(name)[key] | changes}):
        entries._parsed.cache_clear()
        yield
    entries._parsed.cache_clear()


@contextmanager
def rendering() -> Iterator[None]:
    """Another rendering of a chat family."""
    family = chat.FAMILIES["smollm2-think"]
    key, value = next((k, v) for k, v in vars(family).items() if isinstance(v, str) and k != "name")
    with mock.patch.dict(chat.FAMILIES, {"smollm2-think": replace(family, **{key: value + " "})}):
        yield


@contextmanager
def file(name: str, text: str | None) -> Iterator[None]:
    """One of the user's own files with another content, or gone."""
    path = Path(name)
    before, times = path.read_bytes(), path.stat()
    try:
        path.write_text(text) if text is not None else path.unlink()
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@dataclass(frozen=True)
class Change:
    """A row of the table: in words, and done."""

    words: str
    config: dict[str, Any] = field(default_factory=dict)
    done: Callable[[], AbstractContextManager[Any]] = nullcontext
    targets: tuple[str, ...] = ()


def evaluation(**settings: Any) -> dict[str, Any]:
    return {"evaluation": settings}


def benchmark(name: str, **settings: Any) -> dict[str, Any]:
    return evaluation(benchmarks={name: settings})


CHANGES: dict[str, list[Change]] = {
    "The grid": [
        Change("nothing"),
        Change("one more model", {"grid": {"more": {"models": ["qwen3-0.6b"], "methods": ["base", "star1", "advchain"]}}}),
        Change("one model, method or seed less", {"grid": {"main": {"methods": ["base", "star1"]}}}),
        Change("one more method on known chains", {"grid": {"main": {"methods": ["base", "star1", "advchain", "no_injection"]}}}),
        Change("one more training seed", {"grid": {"main": {"seeds": [2002, 2003]}}}),
        Change("another training seed", {"grid": {"main": {"seeds": [2003]}}}),
        Change("one more learning rate", {"grid": {"main": {"learning_rates": [2e-4, 1e-4]}}}),
        Change("one more benchmark", benchmark("strongreject", limit=8)),
        Change("one benchmark less", {"evaluation": {"benchmarks": {"math500": None}}}),
    ],
    "Settings of the config": [
        Change("`name`", {"name": "other"}),
        Change("`seed`", {"seed": 2025}),
        Change("`data.size`", {"data": {"size": 36}}),
        Change("`sources.star1.limit`", {"sources": {"star1": {"limit": 47}}}),
        Change("`chains.tc.position`", {"chains": {"tc": {"position": "early"}}}),
        Change("`chains.tc.count`", {"chains": {"tc": {"count": 37}}}),
        Change("`chains.tc.teacher`", {"chains": {"tc": {"teacher": "embedded"}}}),
        Change("`chains.tc.max_reject_share`", {"chains": {"tc": {"max_reject_share": 0.1}}}),
        Change("`contamination.tfidf`", {"contamination": {"tfidf": 0.5}}),
        Change("`contamination.strict`", {"contamination": {"strict": True}}),
        Change("`train.epochs` (or another of the training's arithmetic)", {"train": {"epochs": 2}}),
        Change("`train.trackers`", {"train": {"trackers": ["wandb"]}}),
        Change("`train.save_every_steps`", {"train": {"save_every_steps": 5}}),
        Change(
            "`train.deepspeed`, `train.micro_batch_tokens`, `train.compile`", {"train": {"deepspeed": "zero2", "micro_batch_tokens": 800, "compile": "off"}}
        ),
        Change("`evaluation.sampling`", evaluation(sampling={"max_new_tokens": 64})),
        Change("`evaluation.engine`", evaluation(engine="vllm")),
        Change(
            "`evaluation.batch_tokens`, `max_sequences`, `replicas`, `stall_seconds`",
            evaluation(batch_tokens=1024, max_sequences=8, replicas=2, stall_seconds=9),
        ),
        Change("`evaluation.judges.over_refusal`", evaluation(judges={"over_refusal": ["refusal_phrases", "step_cues"]})),
        Change("`evaluation.max_unparsed_share`", evaluation(max_unparsed_share=0.2)),
        Change("`limit` of one benchmark", benchmark("xstest", limit=9)),
        Change("`limit` of a benchmark that is attacked", benchmark("harmbench", limit=9)),
        Change("`temperature` of one benchmark", benchmark("xstest", temperature=0)),
        Change("`judges` of one benchmark", benchmark("xstest", judges=["step_cues"])),
        Change("`view` of one benchmark", benchmark("harmbench_full", view="chain")),
        Change("`attack.options` of one attack", benchmark("no_think", attack={"options": {"thought": "less"}})),
        Change("`gpus`", {"gpus": 4}),
        Change("`hardware`", {"hardware": "h100", "gpus": 8}),
    ],
    "Entries of the catalogues": [
        Change("a title in models.yaml, methods.yaml, judges.yaml", done=lambda: entry("models", "smollm2-135m", title="Other")),
        Change("a title in recipes.yaml", done=lambda: entry("recipes", "advchain", title="Other")),
        Change("shares of a recipe", done=lambda: entry("recipes", "advchain", parts=[{"chains": "tc", "share": 0.5}, {"chains": "hc", "share": 0.5}])),
        Change("a teacher's model, temperature or max_tokens", done=lambda: entry("teachers", "openai", temperature=0.5)),
        Change(
            "a teacher's pace, prices, budget or key variable", done=lambda: entry("teachers", "openai", max_in_flight=3, budget_usd=9.0, api_key_env="MY_KEY")
        ),
        Change("the attacker's model", done=lambda: entry("teachers", "embedded_attacker", model="other")),
        Change("a judge's options", done=lambda: entry("judges", "refusal_phrases", options={"window": 200})),
        Change("a model's revision", done=lambda: entry("models", "smollm2-135m", sha256="0" * 64)),
        Change("a model's cards, memory, DeepSpeed profile", done=lambda: entry("models", "smollm2-135m", train_gpus=4, memory_gb=99, deepspeed="zero3")),
        Change("a model's sampling", done=lambda: entry("models", "smollm2-135m", sampling={"top_k": 20})),
        Change("`mask_errors` of a method", done=lambda: entry("methods", "advchain", mask_errors=True)),
    ],
    "Code": [
        *(
            Change(f"`versions.{name}`", done=lambda name=name: version(name))
            for name in sorted(vars(versions), key=list(vars(versions)).index)
            if name.isupper()
        ),
        Change("VERSION of a source file", done=lambda: file_version("sources", "star1")),
        Change("VERSION of a benchmark file", done=lambda: file_version("benchmarks", "xstest")),
        Change("VERSION of an attack file", done=lambda: file_version("attacks", "no_think")),
        Change("VERSION of a judge file", done=lambda: file_version("judges", "refusal_phrases")),
        Change(
            "VERSION of the embedded teacher", {"chains": {"tc": {"teacher": "openai"}}}, lambda: mock.patch.object(embedded, "VERSION", embedded.VERSION + 1)
        ),
        Change("a chat template (a row of chat.py)", done=rendering),
    ],
    "Files and surroundings": [
        Change("your own source file (`from: local`)", done=lambda: file("own_chains.jsonl", "{}\n")),
        Change("your own benchmark file", done=lambda: file("own_prompts.jsonl", "{}\n")),
        Change("your own file is gone", done=lambda: file("own_chains.jsonl", None)),
        Change("its time, not its content", done=lambda: file("own_chains.jsonl", "1\n")),
        Change("a verdict file is deleted", done=lambda: file("results/verdicts/smollm2-135m/star1/seed2002/xstest.jsonl", None)),
        Change("a checkpoint's model.json is deleted", done=lambda: file("results/checkpoints/smollm2-135m/star1/seed2002/model.json", None)),
        Change(
            "the time of a result file is set to now, its content is the same",
            done=lambda: file("results/datasets/star1.jsonl", "results/datasets/star1.jsonl\n"),
        ),
        Change("a finished result is edited", done=lambda: file("results/datasets/star1.jsonl", "{}\n")),
        Change("the same config on a machine with 8 cards", done=lambda: mock.patch.dict(os.environ, {"ADVCHAIN_GPUS": "0,1,2,3,4,5,6,7"})),
        Change(
            "other API keys, proxies, TMPDIR, HF_HOME",
            done=lambda: mock.patch.dict(os.environ, {"OPENAI_API_KEY": "other", "HF_HOME": "/other", "TMPDIR": "/tmp"}),
        ),
    ],
}


@contextmanager
def finished_folder(folder: Path) -> Iterator[Counter[str]]:
    """A work folder in which every job of the grid has been finished hollowly; gives rule -> jobs."""
    before = Path.cwd()
    (folder / "own_chains.jsonl").write_text("1\n")
    (folder / "own_prompts.jsonl").write_text("1\n")
    with mock.patch.dict(os.environ, {"ADVCHAIN_GPUS": ""}):
        done = planner.by_kind(planner.run(folder, [BASE], dry=False).rules)
        os.chdir(folder)
        try:
            yield done
        finally:
            os.chdir(before)


def shown(runs: Counter[str], all_jobs: Counter[str]) -> str:
    """`train 1/2, ...` in the order of the pipeline; score, report and explorer together are "tables"."""
    assert not set(runs) - set(ORDER) - {"all"}, runs
    last = ("score", "report", "explorer")
    names = [name for name in ORDER if runs[name] and not (all(runs[rule] for rule in last) and name in last)]
    parts = [f"{name} {runs[name]}/{all_jobs[name]}" if max(runs[name], all_jobs[name]) > 1 else name for name in names]
    return ", ".join(parts + ["tables"] * all(runs[rule] for rule in last)) or "nothing"


def plan(folder: Path, change: Change, all_jobs: Counter[str]) -> str:
    with change.done():
        config = planner.changed(folder / "changed.yaml", BASE, change.config)
        return shown(planner.by_kind(planner.run(folder, [config], change.targets).rules), all_jobs)


def documented() -> dict[str, tuple[str, str]]:
    """Change -> (what runs again, remark) of the page."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE)
    return {words: (runs, remark) for words, runs, remark in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Counter[str]]]:
    folder = tmp_path_factory.mktemp("finished")
    with finished_folder(folder) as jobs:
        yield folder, jobs


@pytest.mark.parametrize("change", [change for changes in CHANGES.values() for change in changes], ids=lambda change: change.words)
def test_what_runs_again_is_what_the_page_says(finished: tuple[Path, Counter[str]], change: Change) -> None:
    folder, jobs = finished
    assert plan(folder, change, jobs) == documented().get(change.words, ("not on the page", ""))[0]


def write() -> None:
    """Put the tables into the page, between its two marks."""
    known, lines = documented(), []
    with tempfile.TemporaryDirectory() as folder, finished_folder(Path(folder)) as jobs:
        for title, changes in CHANGES.items():
            lines += [f"\n## {title}\n", "| change | runs again | remark |", "| --- | --- | --- |"]
            lines += [f"| {change.words} | {plan(Path(folder), change, jobs)} | {known.get(change.words, ('', ''))[1]} |" for change in changes]
    head, _, _ = PAGE.read_text().partition(f"\n## {next(iter(CHANGES))}\n")
    PAGE.write_text(head + "\n".join(lines) + "\n")
    print(json.dumps({"rows": sum(map(len, CHANGES.values()))}), file=sys.stderr)


if __name__ == "__main__":
    write()
