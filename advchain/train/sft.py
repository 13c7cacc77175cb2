"""Full supervised fine-tuning with DeepSpeed's own engine (paper, training section; METHOD 1.2): from a dataset to a checkpoint folder.

One process per GPU, or one on a CPU. Every process runs `train`; the first one writes.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import AdvChainError, DataError
from advchain.io import canonical_json, new_folder, sha256_file, sha256_text, write_jsonl
from advchain.manifests import Rejects, StageTimer, make_manifest, rejects_path
from advchain.models import check_template, check_weights, load_model_card, load_tokenizer, write_model_card
from advchain.specs import TrainSpec
from advchain.train import export, lora, out_of_memory, tokenised, validation
from advchain.train.batches import num_steps
from advchain.train.compiling import compile_layers
from advchain.train.encode import Encoded
from advchain.train.engine import Group, deepspeed_config, join_group, leave_group, load_model, make_engine
from advchain.train.hub_card import write_hub_card
from advchain.train.loop import Stopped, Training, run_training
from advchain.train.resume import WhenChanged, resume
from advchain.train.trackers import KINDS, Run, Tracker, check_trackers
from advchain.train.watch import Watch

log = logging.getLogger(__name__)

TRAINING_LOG = "training.jsonl"


def train(
    dataset: Path,
    base: Path,
    output: Path,
    work: Path,
    spec: TrainSpec,
    deepspeed_profile: Path,
    threads: int = 0,
    *,
    when_changed: WhenChanged = "refuse",
    logs: Path | None = None,
    trackers: Sequence[str] = (),
) -> None:
    """Fine-tune `base` on `dataset` and write the model folder `output`.

    Args:
        dataset: Sample rows.
        base: folder of the base model with model.json.
        output: folder to make: safetensors, tokenizer, template, training.jsonl (one row per optimizer step), model.json.
        work: folder for token ids and the saved state (`save_every_steps`); a later call with the same inputs goes on from there.
        spec: hyper-parameters.
        deepspeed_profile: JSON of config/deepspeed.
        threads: CPU threads of this process; 0 leaves torch's choice.
        when_changed: what to do with a saved state of another data set, number of processes, batch, learning rate, template, ...
        logs: folder for what trackers write; `work`/logs if left out.
        trackers: of advchain/train/trackers.py.

    Raises:
        ConfigError: the saved state is of another training (`when_changed`), or a tracker's package is missing.
        DataError: no row can be trained on.
        EngineError: loss or gradient became NaN or infinite (names step and rows), memory ran out, or the export is not whole.
        StorageError: a damaged base model, a full disk.
        Stopped: asked to by SIGTERM; the state is saved.
    """
    timer = StageTimer()
    family = check_template(base, spec.family)
    check_trackers(trackers)
    group = join_group(spec.seed, threads)
    try:
        rows, held, rejects = _rows(dataset, base, work, spec, family, group)
        config = deepspeed_config(deepspeed_profile, spec, group.size)
        identity = _identity(dataset, base, spec, family, config, group)
        with out_of_memory.explained(spec, max(map(len, rows)), group.size, group.device.type):
            model = load_model(base, spec, config)
            compile_layers(model, spec, config.get("zero_optimization", {}).get("stage", 0))
            watch = Watch(group, model, num_steps(len(rows), spec.batch_size, spec.epochs), spec.max_grad_norm)
            training = Training(spec, rows, held, model, make_engine(model, spec, config), group, work, identity, watch)
            _describe(training, base, timer)
            start = resume(training, when_changed)
            watch.begin(start, _trackers(training, trackers if group.is_main else (), logs or work / "logs", start))
            run_training(training, start)
        weights = validation.final_weights(training)
        if group.is_main:
            manifest = make_manifest("train", spec.model_dump(mode="json"), [dataset], timer) | _facts(training, rejects)
            _write(output, base, family, training, weights, export.tied_names(model), rejects, manifest)
            log.info("%s written, %.1f s in all", output, timer.seconds())
            for folder in (training.checkpoints, validation.kept_in(training)):
                shutil.rmtree(folder, ignore_errors=True)  # the optimizer's state is seven times the model
        leave_group(group)
    except Stopped:
        leave_group(group)
        raise
    except BaseException:
        leave_group(group, wait=False)  # the others may never come
        raise


def _rows(dataset: Path, base: Path, work: Path, spec: TrainSpec, family: chat.Family, group: Group) -> tuple[list[Encoded], list[Encoded], Rejects]:
    """Return training rows, held-out rows and rejects. The first process checks the model and tokenises, all read the same file.

    Raises:
        AdvChainError: what the first process met, on every process: all end with one paragraph.
    """
    from torch import distributed

    path = tokenised.tokenised_path(dataset, base, work, spec, family)
    met: list[AdvChainError | None] = [None]
    if group.is_main:
        try:
            check_weights(base)
            tokenised.make(path, dataset, base, spec, family)
        except AdvChainError as error:
            met = [error]
    distributed.broadcast_object_list(met, src=0)
    if met[0] is not None:
        raise met[0]
    rows, rejects = tokenised.read(path)
    if not rows:
        why = rejects.counts() or "the file is empty"
        raise DataError(f"{dataset}: no row is left to train on ({why}). Raise train.max_length or mend the data.")
    return *tokenised.hold_out(rows, rejects, spec.holdout_rows, spec.seed), rejects


def _trackers(training: Training, names: Sequence[str], folder: Path, start: int) -> list[Tracker]:
    spec, digest = training.spec, sha256_text(canonical_json(training.identity))
    run = Run(folder, f"{spec.model}/{spec.method}/{spec.run}", digest, spec.model_dump(mode="json"), start)
    return [KINDS[name](run) for name in names]


def _identity(dataset: Path, base: Path, spec: TrainSpec, family: chat.Family, config: dict[str, Any], group: Group) -> dict[str, Any]:
    """What must be equal for a saved state to be resumed from (RELIABILITY C6)."""
    return {
        "spec": spec.model_dump(mode="json"),
        "dataset": sha256_file(dataset),
        "base": load_model_card(base).digest,
        "template": chat.template_digest(family),
        "deepspeed": config,
        "processes": group.size,
    }


def _describe(training: Training, base: Path, timer: StageTimer) -> None:
    """Log what is about to be trained, and the shape of one row; its text only on request, it may be harmful."""
    counts, row = _counts(training.rows), training.rows[0]
    log.info(
        "%d rows, %d tokens (%d supervised), longest %d; %d steps of %d rows; %d process(es) on %s; ready after %.1f s",
        *(counts[key] for key in ("rows", "tokens", "supervised_tokens", "longest")),
        *(training.num_steps, training.spec.batch_size, training.group.size, training.group.device, timer.seconds()),
    )
    prompt = row.supervised.index(True)
    masked = len(row) - prompt - row.num_supervised
    log.info("sample %s: %d tokens, prompt %d, supervised %d, masked after the prompt %d", row.id, len(row), prompt, row.num_supervised, masked)
    if os.environ.get("ADVCHAIN_SHOW_TEXT") == "1":
        log.info("sample %s reads:\n%s", row.id, show_mask(row, load_tokenizer(base)))


def show_mask(row: Encoded, tokenizer: Any) -> str:
    """Return a row as text, a line per run of tokens: `+` is learnt, `.` is not. It may be harmful: shown on request only."""
    runs = groupby(zip(row.ids, row.supervised, strict=True), key=lambda token: token[1])
    texts = ((learnt, tokenizer.decode([token for token, _ in run], skip_special_tokens=False)) for learnt, run in runs)
    return "\n".join(f"{'+' if learnt else '.'} {text!r}" for learnt, text in texts)


def _counts(rows: Sequence[Encoded]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "tokens": sum(map(len, rows)),
        "supervised_tokens": sum(row.num_supervised for row in rows),
        "longest": max(map(len, rows)),
    }


def _facts(training: Training, rejects: Rejects) -> dict[str, Any]:
    skipped = sum(row["loss"] is None for row in training.log_rows)
    return {
        "rejects": {"total": len(rejects), "reasons": rejects.counts()},
        "counts": _counts(training.rows) | {"steps": training.num_steps, "held_out": len(training.held), "skipped_steps": skipped},
        "processes": training.group.size,
        "device": str(training.group.device),
        "deepspeed": training.identity["deepspeed"],
        "kept": training.best or {"step": training.num_steps},
        "resumed_with_changes": training.changes,
        "peak_memory_gib": training.watch.peak_memory_gib(),
    }


def _write(
    output: Path, base: Path, family: chat.Family, training: Training, weights: dict[str, Any], tied: set[str], rejects: Rejects, manifest: dict[str, Any]
) -> None:
    """Write the checkpoint folder beside its place, check it, and rename it."""
    spec = training.spec
    with new_folder(output) as folder:
        if spec.lora:
            lora.write_adapters(folder, weights, spec.lora, load_model_card(base).name)
        export.write_model(folder, base, weights, spec.precision)
        export.write_serving_files(folder, family)
        export.check_export(folder, base, tied)
        export.check_serving_files(folder, family)
        export.try_generation(folder, family)
        write_jsonl(folder / TRAINING_LOG, training.log_rows)
        write_jsonl(rejects_path(folder / TRAINING_LOG), rejects.rows)
        name = f"{spec.model}/{spec.method}/{spec.run}"
        write_hub_card(folder, name, family, load_model_card(base), manifest, training.log_rows)
        write_model_card(folder, name=name, family=family.name, base=load_model_card(base).name, spec=spec.model_dump(mode="json"), manifest=manifest)
