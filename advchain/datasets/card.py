"""The card of a training set: what is in it, how it came to be and what it cost, which benchmark prompts it holds. Never quotes a prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advchain import versions
from advchain.datasets.contamination.report import HOW
from advchain.datasets.markdown import table
from advchain.datasets.statistics import BINS, statistics
from advchain.errors import DataError, StorageError
from advchain.io import iter_records, read_records, write_text
from advchain.manifests import make_manifest, manifest_path, rejects_path, write_manifest
from advchain.records import Match, Sample
from advchain.specs import DatasetSpec

MAX_LISTED = 50
KINDS = {
    "tc": "temptation-correction: on a harmful prompt the chain is led towards complying, notices, and returns to its safe answer",
    "hc": "hesitation-correction: on a harmless prompt the chain leans towards refusing, notices, and returns to its helpful answer",
    "plain": "untouched chain of the source",
    "control": "a rewritten chain with something else in place of its injected steps",
}
STEPS = {
    "all": "as rewritten",
    "base": "injected steps stripped",
    "correction": "error steps left out",
    "error": "correction steps left out",
    "filler": "neutral filler of the same number of words in place of each injected step",
    "prefix": "half of the rows begin with the first words of the error step, no correction (Qi et al. 2024)",
}
LENGTHS = {"steps": "steps in a chain", "chain_words": "words in a chain", "injected_words": "of these, injected", "answer_words": "words in an answer"}


class Upstream(NamedTuple):
    """An input of a training set and what the manifest beside it says."""

    name: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def counts(self) -> Mapping[str, Any]:
        """Stage-specific figures."""
        counts: Mapping[str, Any] = self.manifest.get("counts", {})
        return counts


def write_card(output: Path, dataset: Path, chains: Mapping[str, Path], sources: Mapping[str, Path], matches: Path) -> None:
    """Write the card of one training set.

    Args:
        dataset: Sample rows, with their manifest.
        chains, sources: the files it was mixed from, and those that the chains were made from, by name; their manifests tell yield, rejects and cost.
        matches: Match rows of the contamination report, with their manifest.

    Raises:
        StorageError: a manifest is missing.
        DataError: a manifest is not one.
    """
    samples, manifest = read_records(dataset, Sample), read_manifest(dataset)
    spec = DatasetSpec.model_validate(manifest["spec"])
    rewritten, plain = ([Upstream(name, path, read_manifest(path)) for name, path in files.items()] for files in (chains, sources))
    write_text(output, "\n\n".join(_sections(spec, samples, manifest, [*plain, *rewritten], rewritten, matches)) + "\n")
    write_manifest(manifest_path(output), make_manifest("card", {"version": versions.CARD}, [dataset, matches]), [output])


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest beside a stage file.

    Raises:
        StorageError: there is none.
        DataError: it is not JSON.
    """
    found = manifest_path(path)
    try:
        manifest: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {found}: {error.strerror}. Make {path} with its rule: the manifest is written beside it.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{found}: not JSON ({error.msg}). Make {path} again with its rule.") from error
    return manifest


def _sections(
    spec: DatasetSpec, samples: Sequence[Sample], manifest: Mapping[str, Any], inputs: Sequence[Upstream], rewritten: Sequence[Upstream], matches: Path
) -> Iterable[str]:
    figures = statistics(samples)
    yield (
        f"# {spec.title}\n\nTraining set `{spec.recipe}`: {len(samples)} rows (prompt, chain of thought, answer) for supervised fine-tuning. Prompts include "
        "harmful requests, and chains may argue towards complying before they turn back: for safety research, not for release without review."
    )
    yield "## Rows\n\n" + table(("kind", "rows", "what it is"), [(kind, n, KINDS[kind]) for kind, n in figures["kinds"].items()])
    yield table(
        ("part", "from", "rows", "injected steps"),
        [(i, p.chains or p.source, p.count, STEPS[p.steps] if p.chains else "none") for i, p in enumerate(spec.parts)],
    )
    yield "### Sources\n\n" + table(("source", "rows"), figures["sources"].items())
    yield "### Categories\n\nA row may have several.\n\n" + table(("category", "rows"), figures["categories"].items())
    yield "## Lengths\n\n" + _lengths(figures)
    yield "## Where steps were inserted\n\n" + _histogram(figures["positions"])
    yield "## Yield and rejects\n\n" + _yield(rewritten)
    yield "### Reasons\n\n" + _reasons([*inputs, Upstream(spec.recipe, Path(manifest["output"]["path"]), manifest)])
    yield "## Cost\n\n" + _cost(rewritten)
    yield "## Provenance\n\n" + _provenance(spec, manifest, inputs, figures)
    yield "## Overlap with benchmarks\n\n" + _overlap(spec, matches)


def _lengths(figures: Mapping[str, Any]) -> str:
    names = ("mean", "min", "median", "p95", "max")
    return table(("number of", *names), [(title, *(figures[key][name] for name in names)) for key, title in LENGTHS.items()])


def _histogram(positions: Sequence[int]) -> str:
    if not any(positions):
        return "No error step was inserted."
    widest = max(positions)
    rows = [(f"{100 * i // BINS}-{100 * (i + 1) // BINS}%", n, "#" * round(30 * n / widest)) for i, n in enumerate(positions)]
    return "Base steps before the first injected one, as a share of the base chain.\n\n" + table(("share", "rows", ""), rows)


def _yield(rewritten: Sequence[Upstream]) -> str:
    """Rows made and rejected per category of each chain set (METHOD 7.7: yield); a row counts with its first category."""
    if not rewritten:
        return "No chain was rewritten."
    rows = []
    for name, path, manifest in rewritten:
        made = Counter(sample.category[0] if sample.category else "none" for sample in iter_records(path, Sample))
        rejected: Mapping[str, Mapping[str, int]] = manifest.get("counts", {}).get("rejects_by_category", {})
        for category in sorted({*made, *rejected}):
            reasons = rejected.get(category, {})
            rows.append((name, category, made[category], sum(reasons.values()), _percent(made[category], sum(reasons.values())), _listed(reasons)))
        total = manifest["rejects"]
        rows.append((name, "all", made.total(), total["total"], _percent(made.total(), total["total"]), _listed(total["reasons"])))
    return table(("chains", "category", "made", "rejected", "yield", "reasons"), rows)


def _percent(made: int, rejected: int) -> str:
    return f"{100 * made / (made + rejected):.1f}%" if made + rejected else "-"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _reasons(inputs: Sequence[Upstream]) -> str:
    rows = [(u.name, reason, n, rejects_path(u.path).name) for u in inputs for reason, n in u.manifest["rejects"]["reasons"].items()]
    return table(("stage", "reason", "rows", "listed in"), rows)


def _cost(rewritten: Sequence[Upstream]) -> str:
    rows = [
        (u.name, u.counts.get("answers", "-"), u.counts.get("input_tokens", "-"), u.counts.get("output_tokens", "-"), u.counts.get("usd", "-"))
        for u in rewritten
    ]
    return "Of whole chain sets, of which the training set takes a part.\n\n" + table(
        ("chains", "teacher's answers", "input tokens", "output tokens", "USD"), rows
    )


def _provenance(spec: DatasetSpec, manifest: Mapping[str, Any], inputs: Sequence[Upstream], figures: Mapping[str, Any]) -> str:
    lines = [
        f"- sha256 of `{manifest['output']['path']}`: `{manifest['output']['sha256']}`",
        f"- seed of the order: {spec.seed}" if spec.shuffle else "- order: that of the parts",
        f"- teachers: {', '.join(f'{name} ({n} rows)' for name, n in figures['teachers'].items()) or 'none'}",
        f"- rows whose prompt an earlier row has: {figures['repeated_prompts']}",
    ]
    rows = [
        (u.path.name, u.manifest["output"]["rows"], u.manifest["rejects"]["total"], u.manifest["spec"].get("seed", "-"), u.manifest["output"]["sha256"])
        for u in inputs
    ]
    return "\n".join(lines) + "\n\n" + table(("input", "rows", "rejected on the way", "seed", "sha256"), rows)


def _overlap(spec: DatasetSpec, path: Path) -> str:
    counts: Mapping[str, Any] = read_manifest(path)["counts"]
    if not counts:
        return "No benchmark is evaluated, so none was compared."
    ways = [way for way in HOW if any(way in found for found in counts.values())]
    dropped = "Rows that match were dropped before (`contamination.strict`). " if spec.strict else ""
    text = f"{dropped}Training rows that match a prompt of the whole benchmark, by way; thresholds are in contamination.md.\n\n"
    text += table(("benchmark", "prompts", *ways, "any"), [(n, f["items"], *(f.get(way, "-") for way in ways), f["rows"]) for n, f in counts.items()])
    matches = read_records(path, Match)
    for name in counts:
        pairs = [f"{match.sample_id} = {match.item_id}" for match in matches if match.benchmark == name]
        if pairs:
            text += f"\n\n{name}: {'; '.join(pairs[:MAX_LISTED])}" + (f"; and {len(pairs) - MAX_LISTED} more" if len(pairs) > MAX_LISTED else "")
    return text
