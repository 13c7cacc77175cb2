"""The training set as token ids, made once by the first process and read by all: a restart or another process tokenises nothing again.

One file in the work folder: a head line with key and digest, then a line per row. The key is a hash of everything the ids depend
on (data, tokenizer, template, length, mask); the plan of steps is not stored, it follows from lengths and seed in milliseconds.
"""

from __future__ import annotations

import json
import logging
from itertools import groupby
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import DataError, StorageError
from advchain.io import canonical_json, read_records, sha256_file, sha256_text, write_text
from advchain.manifests import Rejects
from advchain.models import load_model_card, load_tokenizer
from advchain.records import Sample, derive_seed
from advchain.specs import TrainSpec
from advchain.train.encode import Encoded, encode_samples

log = logging.getLogger(__name__)

FORMAT = 1  # of the file; bump when the file or advchain/train/encode.py changes


def tokenised_path(dataset: Path, base: Path, work: Path, spec: TrainSpec, family: chat.Family) -> Path:
    """Return where the token ids of this training set belong."""
    parts = {
        "format": FORMAT,
        "dataset": sha256_file(dataset),
        "tokenizer": load_model_card(base).weights_sha256["tokenizer.json"],
        "template": chat.template_digest(family),
        "max_length": spec.max_length,
        "mask_errors": spec.mask_errors,
    }
    return work / f"tokenised-{sha256_text(canonical_json(parts))[:16]}.jsonl"


def make(path: Path, dataset: Path, base: Path, spec: TrainSpec, family: chat.Family) -> None:
    """Tokenise `dataset` into `path`, unless an undamaged file is there; remove files of other settings.

    Raises:
        DataError: a row of the data set is broken.
    """
    for other in path.parent.glob("tokenised-*.jsonl"):
        if other != path:
            other.unlink(missing_ok=True)
    if path.is_file() and _parse(path) is not None:
        log.info("%s: tokenised before", path)
        return
    samples = read_records(dataset, Sample)
    rows, rejects = encode_samples(samples, family, load_tokenizer(base), max_length=spec.max_length, mask_errors=spec.mask_errors)
    body = "".join(canonical_json({"id": row.id, "ids": row.ids, "supervised": _runs(row.supervised)}) + "\n" for row in rows)
    head = {"key": path.stem, "sha256": sha256_text(body), "rejects": rejects.rows}
    write_text(path, canonical_json(head) + "\n" + body)


def read(path: Path) -> tuple[list[Encoded], Rejects]:
    """Return rows in file order and what was rejected.

    Raises:
        StorageError: the file is missing or damaged.
    """
    found = _parse(path)
    if found is None:
        raise StorageError(f"{path} cannot be read back whole. Every process needs to see this folder; delete the file and run again.")
    return found


def _parse(path: Path) -> tuple[list[Encoded], Rejects] | None:
    """Rows and rejects; None if the file is not what was written."""
    rejects = Rejects()
    try:
        head, _, body = path.read_text(encoding="utf-8").partition("\n")
        content = json.loads(head)
        if (content["key"], content["sha256"]) != (path.stem, sha256_text(body)):
            raise ValueError("another digest")
        rejects.rows.extend(content["rejects"])
        return [_row(json.loads(line)) for line in body.splitlines()], rejects
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s: not used, it is damaged (%s)", path, error)
        return None


def _runs(mask: list[bool]) -> list[int]:
    """[False, False, True] -> [2, 1]: lengths of runs, the first of unsupervised tokens."""
    runs = [0] if mask and mask[0] else []
    return runs + [sum(1 for _ in run) for _, run in groupby(mask)]


def _row(value: dict[str, Any]) -> Encoded:
    supervised = [bool(number % 2) for number, length in enumerate(value["supervised"]) for _ in range(length)]
    return Encoded(value["id"], value["ids"], supervised)


def hold_out(rows: list[Encoded], rejects: Rejects, num: int, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """Take `num` rows out of the training rows, chosen by a hash of seed and id, so that every method holds out the same ids.

    Returns:
        Training rows and held-out rows, each in file order; the latter are added to `rejects` as held_out.

    Raises:
        DataError: nothing would be left to train on.
    """
    if num >= len(rows) > 0 and num:
        raise DataError(f"train.holdout_rows is {num}, but there are only {len(rows)} rows to train on. Lower it.")
    chosen = {row.id for row in sorted(rows, key=lambda row: derive_seed(seed, "holdout", row.id))[:num]}
    held = [row for row in rows if row.id in chosen]
    for row in held:
        rejects.add(row.id, "held_out", "kept for the validation loss (train.holdout_rows)")
    return [row for row in rows if row.id not in chosen], held
