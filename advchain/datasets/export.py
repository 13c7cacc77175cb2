"""A training set as others load it: parquet with a `messages` column, a data card with YAML header, an entry for LLaMA-Factory.

`datasets.load_dataset(folder)` reads it, TRL trains on it as it is (conversational `messages`; no column is called `prompt`, which TRL
would take for another format), LLaMA-Factory with `dataset_dir: folder`. The assistant's message is `<think>`, chain, `</think>`,
answer, as chat.py renders it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from advchain.chat import CLOSING, OPENING
from advchain.io import atomic_write, iter_records, sha256_file, write_json, write_text
from advchain.manifests import make_manifest, write_manifest
from advchain.records import Sample
from advchain.specs import ExportSpec

log = logging.getLogger(__name__)

DATA = "data/train-00000-of-00001.parquet"
ROWS_PER_GROUP = 1000
LICENCES = {"star1": "apache-2.0", "star_benign": "apache-2.0"}  # of UCSC-VLAA/STAR-1; a mix with anything else is "other"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
USE = """\
```python
from datasets import load_dataset
rows = load_dataset("{folder}", split="train")     # or the repository's id on the hub
```

Columns: `messages` (user, assistant; the assistant's text is `<think>` + chain + `</think>` + answer), `thinking` and `answer` (the same
apart), `steps` (paragraphs of the chain with their role: base, error, correction, filler), `insertion` (base steps before the first error),
`kind`, `nature`, `category`, `source`, `teacher`, `id`.

TRL: `SFTTrainer(model, train_dataset=rows)`. LLaMA-Factory: `dataset_dir: {folder}`, `dataset: {dataset}`. Check what your template makes of
the assistant's text: that of the R1 distillations drops everything before `</think>`, and the chain would not be learnt; Qwen3's keeps it.
Whole messages are learnt there; leaving error steps out of the loss needs `steps` (or this project's own training)."""


def export(folder: Path, dataset: Path, card: Path, spec: ExportSpec) -> None:
    """Write the folder: data/*.parquet, dataset_info.json, README.md, export.json (provenance) last.

    Args:
        dataset: Sample rows.
        card: the training set's card; it becomes the body of the README.
    """
    rows = write_parquet(folder / DATA, iter_records(dataset, Sample))
    name = re.sub(r"\W+", "_", f"{spec.name}_{spec.recipe}")
    write_json(folder / "dataset_info.json", {name: llama_factory_entry()})
    sources = {sample.source for sample in iter_records(dataset, Sample)}
    write_text(folder / "README.md", _header(spec, rows, sources) + _body(folder, name, card))
    manifest = make_manifest("export", spec.model_dump(), [dataset, card]) | {"output": {"path": DATA, "sha256": sha256_file(folder / DATA), "rows": rows}}
    write_manifest(folder / "export.json", manifest, [folder / "README.md", folder / "dataset_info.json"])
    log.info("export %s: %d rows in %s", spec.recipe, rows, folder)


def row_of(sample: Sample) -> dict[str, Any]:
    """Return one exported row."""
    assistant = OPENING + sample.thinking + CLOSING + sample.answer
    messages = [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": assistant}]
    steps = [{"role": step.role, "text": step.rendered} for step in sample.steps]
    plain = sample.model_dump(include={"id", "answer", "kind", "nature", "source", "teacher", "insertion"})
    return {"messages": messages, "thinking": sample.thinking, "steps": steps, "category": list(sample.category), **plain}


def _schema() -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    def pairs(*names: str) -> Any:
        return pa.list_(pa.struct([(name, pa.string()) for name in names]))

    texts = [(name, pa.string()) for name in ("id", "thinking", "answer", "kind", "nature", "source", "teacher")]
    return pa.schema(
        [("messages", pairs("role", "content")), *texts, ("category", pa.list_(pa.string())), ("insertion", pa.int64()), ("steps", pairs("role", "text"))]
    )


def write_parquet(path: Path, samples: Iterable[Sample]) -> int:
    """Write the rows in groups, atomically; return how many."""
    import pyarrow as pa
    from pyarrow import parquet

    count = 0
    with atomic_write(path, binary=True) as file, parquet.ParquetWriter(file, _schema(), compression="zstd") as writer:
        for group in _groups(map(row_of, samples)):
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
            count += len(group)
    return count


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(rows)
    while group := list(islice(source, ROWS_PER_GROUP)):
        yield group


def llama_factory_entry() -> dict[str, Any]:
    """Return the entry of LLaMA-Factory's dataset_info.json: ShareGPT layout with OpenAI's names."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    return {"file_name": DATA, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}


def _header(spec: ExportSpec, rows: int, sources: set[str]) -> str:
    licences = {LICENCES.get(source, "other") for source in sources}
    header = {
        "pretty_name": spec.title,
        "language": ["en"],
        "license": licences.pop() if len(licences) == 1 else "other",
        "task_categories": ["text-generation"],
        "size_categories": [next((name for limit, name in SIZES if rows < limit), "n>1M")],
        "tags": ["safety", "reasoning", "chain-of-thought", "not-for-all-audiences"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        "extra_gated_prompt": "Holds harmful requests and chains that argue towards complying before they turn back. For safety research only.",
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)}---\n\n"


def _body(folder: Path, name: str, card: Path) -> str:
    title, _, rest = card.read_text(encoding="utf-8").partition("\n\n")
    return f"{title}\n\n{rest.rstrip()}\n\n## Use\n\n{USE.format(folder=folder.name, dataset=name)}\n"
