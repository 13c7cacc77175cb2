"""The card of a training set: what is in it, where it came from, and which benchmark prompts it holds. Never quotes a prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from advchain.io import manifest_path, read_records, sha256_file
from advchain.records import Item, Sample
from advchain.rows import prompt_key
from advchain.specs import DatasetSpec

BINS = 5
MAX_LISTED = 50
KINDS = {
    "tc": "temptation-correction: on a harmful prompt the chain is led towards complying, notices, and returns to its safe answer",
    "hc": "hesitation-correction: on a harmless prompt the chain leans towards refusing, notices, and returns to its helpful answer",
    "plain": "untouched chain of the source",
}


def statistics(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return counts and means of a training set; `positions` counts k / number of base steps in fifths of the chain."""
    return {
        "kinds": _count(sample.kind for sample in samples),
        "natures": _count(sample.nature for sample in samples),
        "sources": _count(sample.source or "unknown" for sample in samples),
        "teachers": _count(sample.teacher for sample in samples if sample.teacher),
        "categories": _count(name for sample in samples for name in sample.category),
        "roles": _count(step.role for sample in samples for step in sample.steps),
        "mean_steps": _mean(len(sample.steps) for sample in samples),
        "mean_chain_words": _mean(len(sample.thinking.split()) for sample in samples),
        "mean_answer_words": _mean(len(sample.answer.split()) for sample in samples),
        "mean_injected_words": _mean(_injected_words(sample) for sample in samples),
        "positions": _positions(samples),
        "repeated_prompts": len(samples) - len({prompt_key(sample.prompt) for sample in samples}),
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0])))


def _mean(values: Iterable[int]) -> float:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 1) if numbers else 0.0


def _injected_words(sample: Sample) -> int:
    return sum(len(step.rendered.split()) for step in sample.steps if step.role != "base")


def _positions(samples: Sequence[Sample]) -> list[int]:
    bins = [0] * BINS
    for sample in samples:
        if sample.insertion is not None:
            num_base = sum(step.role == "base" for step in sample.steps)
            bins[min(BINS - 1, sample.insertion * BINS // max(num_base, 1))] += 1
    return bins


def overlap_with(samples: Sequence[Sample], prompts: Iterable[Path]) -> dict[str, list[tuple[str, str]]]:
    """Return, for each Item file, (sample id, item id) pairs whose prompt or plain request is the same but for case and spaces."""
    keys: dict[str, list[str]] = {}
    for sample in samples:
        keys.setdefault(prompt_key(sample.prompt), []).append(sample.id)
    found = {}
    for path in prompts:
        items = read_records(path, Item)
        pairs = {(sample_id, item.id) for item in items for text in (item.prompt, item.request) for sample_id in keys.get(prompt_key(text), ())}
        found[path.stem] = sorted(pairs)
    return found


def make_card(spec: DatasetSpec, samples: Sequence[Sample], output: Path, inputs: Sequence[Path], overlaps: dict[str, list[tuple[str, str]]]) -> str:
    """Return the card as Markdown. `output` is written already; manifests beside `inputs` tell rejects and seeds upstream."""
    figures = statistics(samples)
    parts = [
        f"# {spec.title}\n\nTraining set `{spec.recipe}`: {len(samples)} rows (prompt, chain of thought, answer) for supervised fine-tuning. Prompts include "
        "harmful requests, and chains may argue towards complying before they turn back: for safety research, not for release without review.",
        "## Rows\n\n" + _table(("kind", "rows", "what it is"), [(kind, n, KINDS[kind]) for kind, n in figures["kinds"].items()]),
        _table(("part", "from", "steps", "rows"), [(i, p.chains or p.source, p.steps, p.count) for i, p in enumerate(spec.parts)]),
        "### Sources\n\n" + _table(("source", "rows"), figures["sources"].items()),
        "### Categories\n\nA row may have several.\n\n" + _table(("category", "rows"), figures["categories"].items()),
        "## Lengths\n\n" + _lengths(figures),
        "## Where steps were inserted\n\n" + _histogram(figures["positions"]),
        "## Provenance\n\n" + _provenance(spec, output, inputs, figures),
        "## Overlap with benchmarks\n\n" + _overlap(overlaps),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    if len(lines) == 2:
        return "None."
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def _lengths(figures: dict[str, Any]) -> str:
    names = {
        "mean_steps": "steps in a chain",
        "mean_chain_words": "words in a chain",
        "mean_injected_words": "of these, injected",
        "mean_answer_words": "words in an answer",
    }
    return _table(("mean", "value"), [(title, figures[name]) for name, title in names.items()])


def _histogram(positions: Sequence[int]) -> str:
    if not any(positions):
        return "No step was inserted."
    widest = max(positions)
    rows = [(f"{100 * i // BINS}-{100 * (i + 1) // BINS}%", n, "#" * round(30 * n / widest)) for i, n in enumerate(positions)]
    return "Base steps before the first injected one, as a share of the base chain.\n\n" + _table(("share", "rows", ""), rows)


def _provenance(spec: DatasetSpec, output: Path, inputs: Sequence[Path], figures: dict[str, Any]) -> str:
    lines = [
        f"- sha256 of `{output.name}`: `{sha256_file(output)}`",
        f"- seed of the order: {spec.seed}" if spec.shuffle else "- order: that of the parts",
        f"- teachers: {', '.join(f'{name} ({n} rows)' for name, n in figures['teachers'].items()) or 'none'}",
        f"- rows whose prompt an earlier row has: {figures['repeated_prompts']}",
    ]
    rows = [_upstream(path) for path in inputs]
    return "\n".join(lines) + "\n\n" + _table(("input", "rows", "rejected on the way", "seed", "sha256"), rows)


def _upstream(path: Path) -> tuple[str, Any, str, Any, str]:
    """Return what the manifest beside an input says of it."""
    manifest: dict[str, Any] = {}
    if manifest_path(path).is_file():
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    rejects = manifest.get("rejects", {})
    reasons = ", ".join(f"{reason} {n}" for reason, n in rejects.get("reasons", {}).items())
    rejected = f"{rejects.get('total', 'not recorded')}" + (f" ({reasons})" if reasons else "")
    return path.name, manifest.get("output", {}).get("rows", "?"), rejected, manifest.get("spec", {}).get("seed", "?"), sha256_file(path)


def _overlap(overlaps: dict[str, list[tuple[str, str]]]) -> str:
    if not overlaps:
        return "Not checked: no benchmark prompts were given."
    text = "Prompts that are equal but for case and spaces. Paraphrases are not looked for.\n\n"
    text += _table(("benchmark", "prompts in the training set"), [(name, len(pairs)) for name, pairs in overlaps.items()])
    for name, pairs in overlaps.items():
        if pairs:
            listed = "; ".join(f"{sample} = {item}" for sample, item in pairs[:MAX_LISTED])
            text += f"\n\n{name}: {listed}" + (f"; and {len(pairs) - MAX_LISTED} more" if len(pairs) > MAX_LISTED else "")
    return text
