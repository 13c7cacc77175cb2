"""The contamination report: per training set the matching pairs, and one table of all training sets against all benchmarks.

Ids and scores only, never a prompt. It is no input of training: comparing with another benchmark retrains nothing (unless `strict`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advchain.datasets.contamination.compare import Comparison, Prompt, embedding_folder, read_items
from advchain.datasets.markdown import table
from advchain.io import iter_records, write_text
from advchain.manifests import StageTimer, make_manifest, manifest_path, write_manifest, write_stage
from advchain.records import Item, Match, Sample
from advchain.specs import ContaminationSpec

log = logging.getLogger(__name__)

HOW = {
    "same": "the same text, byte for byte",
    "folded": "the same text but for case, spacing and Unicode form",
    "ngram": "share of the shorter prompt's word 5-grams that the longer one has (at least 4 of them)",
    "tfidf": "TF-IDF cosine, idf over the benchmark",
    "embedding": "cosine of the embedding model",
}


def write_matches(output: Path, dataset: Path, spec: ContaminationSpec, benchmarks: Mapping[str, Path], sources: Mapping[str, Path]) -> int:
    """Compare one training set with every benchmark; write the matches with a summary per benchmark in the manifest; return their number.

    Args:
        dataset: Sample rows.
        benchmarks: name -> Item file, whole.
        sources: name -> Chain file of an attack's held-out chains.
    """
    timer = StageTimer()
    items = read_items(benchmarks, sources)
    prompts = (Prompt(sample.id, sample.prompt) for sample in iter_records(dataset, Sample))
    matches = list(Comparison(items, spec).matches(prompts))
    counts = summary(items, matches, spec)
    weights = sorted(embedding_folder(spec.embedding_model).glob("*.safetensors")) if spec.embedding_model else []
    inputs = [dataset, *benchmarks.values(), *sources.values(), *weights]
    rows = write_stage(output, matches, stage="contamination", spec=spec.model_dump(), inputs=inputs, counts=counts, timer=timer)
    log.info("contamination of %s: %d pairs %s", dataset.stem, rows, dict(Counter(match.benchmark for match in matches)) or "")
    return rows


def summary(items: Mapping[str, Sequence[Item]], matches: Sequence[Match], spec: ContaminationSpec) -> dict[str, Any]:
    """Return per benchmark its items, and how many training rows match in each way (and in any), with item categories of the same texts."""
    found: dict[str, Any] = {}
    for name, rows in items.items():
        mine = [match for match in matches if match.benchmark == name]
        ways = {way: len({match.sample_id for match in mine if _matches(match, way, spec)}) for way in HOW if way != "embedding" or spec.embedding_model}
        categories = Counter(match.category or "none" for match in mine if match.folded)
        found[name] = {"items": len(rows), **ways, "rows": len({match.sample_id for match in mine}), "categories": dict(sorted(categories.items()))}
    return found


def _matches(match: Match, way: str, spec: ContaminationSpec) -> bool:
    value = getattr(match, way)
    return value if isinstance(value, bool) else value is not None and value >= getattr(spec, way)


def ways_of(match: Match, spec: ContaminationSpec) -> list[str]:
    """Return the ways in which a pair matches, strongest first."""
    return [way for way in HOW if _matches(match, way, spec)]


def write_table(output: Path, matches: Mapping[str, Path]) -> None:
    """Write one Markdown table of all training sets against all benchmarks, from the manifests beside `matches` (recipe -> file)."""
    manifests = {recipe: json.loads(manifest_path(path).read_text(encoding="utf-8")) for recipe, path in matches.items()}
    write_text(output, "\n\n".join(_sections(manifests)) + "\n")
    write_manifest(manifest_path(output), make_manifest("contamination table", {}, matches.values()), [output])


def _sections(manifests: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    yield "# Training prompts that are benchmark prompts"
    yield "Rows of each training set that match a prompt of the whole benchmark, whatever part of it is evaluated: all / of these the same text."
    names = list(dict.fromkeys(name for manifest in manifests.values() for name in manifest["counts"]))
    rows = [(recipe, *(_cell(manifest["counts"].get(name)) for name in names)) for recipe, manifest in manifests.items()]
    yield table(("training set", *names), rows)
    sizes = {name: found["items"] for manifest in manifests.values() for name, found in manifest["counts"].items()}
    yield "Prompts compared with: " + ", ".join(f"{name} {size}" for name, size in sizes.items()) + "."
    spec: Mapping[str, Any] = next((manifest["spec"] for manifest in manifests.values()), {})
    yield "## How prompts are compared\n\n" + table(("way", "threshold", "what it is"), [(way, spec.get(way, ""), what) for way, what in _ways(spec)])


def _ways(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(way, what) for way, what in HOW.items() if way != "embedding" or spec.get("embedding_model")]


def _cell(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['rows']} / {found['folded']}"
