"""Answer every prompt of a checkpoint with one engine load, resumably; then write one response file per evaluation.

A finished row is in the store at once, keyed by everything it depends on (weights, rendering, prompt, decoding, seed, engine), so a kill
loses what is in flight and a changed benchmark asks only its own prompts again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advchain import chat
from advchain.errors import ConfigError, EngineError
from advchain.generate.engine import Engine, EngineName, Precision, Request, choose_engine, choose_precision
from advchain.io import StageTimer, make_manifest, read_records, write_json, write_stage
from advchain.models import ModelCard, check_template, check_weights, load_model_card, load_tokenizer
from advchain.progress import Progress
from advchain.records import Item, Response, derive_seed
from advchain.specs import GenerateSpec, Sampling
from advchain.store import Store, make_key, read_store

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What every answer of this run depends on beside its own prompt."""

    card: ModelCard
    family: chat.Family
    tokenizer: Any
    engine: EngineName
    precision: Precision


def generate(checkpoint: Path, prompts: Mapping[str, Path], store: Path, marker: Path, spec: GenerateSpec) -> None:
    """Fill the store with every missing answer of one checkpoint, then write the marker.

    Args:
        checkpoint: model folder with model.json.
        prompts: evaluation -> Item rows.
        store: append-only store of finished rows.
        marker: manifest written when nothing is missing.

    Raises:
        EngineError: the checkpoint's rendering differs, or the engine died; finished rows stay in the store.
        StorageError: a weight file is damaged.
    """
    timer = StageTimer()
    check_weights(checkpoint)
    place = _place(checkpoint, choose_engine(spec.engine), spec)
    with Store(store) as finished:
        wanted = [request for name, path in prompts.items() for request in _requests(place, spec, name, read_records(path, Item))]
        missing = [request for request in wanted if request.key not in finished]
        log.info("generate %s: %d answers wanted, %d to make with %s %s", spec.checkpoint, len(wanted), len(missing), place.engine, place.precision)
        tokens = _answer(checkpoint, place, spec, missing, finished)
    manifest = make_manifest("generate", spec.model_dump(mode="json"), [*prompts.values(), checkpoint / "model.json"], timer)
    counts = {"wanted": len(wanted), "generated": len(missing), "tokens": tokens}
    write_json(marker, manifest | {"engine": place.engine, "precision": place.precision, "counts": counts})


def write_responses(prompts: Path, store: Path, checkpoint: Path, output: Path, spec: GenerateSpec, evaluation: str) -> None:
    """Write the Response rows of one evaluation, in prompt order, from the store.

    Raises:
        EngineError: a row is missing; says which rule to force.
    """
    timer = StageTimer()
    finished = read_store(store)
    known = {value["engine"]: value["precision"] for value in finished.values()}
    items = read_records(prompts, Item)
    for engine, precision in known.items():
        place = Place(load_model_card(checkpoint), check_template(checkpoint), load_tokenizer(checkpoint), engine, precision)
        requests = list(_requests(place, spec, evaluation, items))
        if all(request.key in finished for request in requests):
            by_id = {item.id: item for item in items}
            rows = [_response(place, by_id[request.item_id], request, finished[request.key]) for request in requests]
            write_stage(output, rows, stage="responses", spec=spec.model_dump(mode="json"), inputs=[prompts], counts=_counts(rows, place), timer=timer)
            return
    raise EngineError(f"{store} does not hold every answer to {evaluation} of {spec.checkpoint}. Run again with --forcerun generate.")


def _place(checkpoint: Path, engine: EngineName, spec: GenerateSpec) -> Place:
    return Place(load_model_card(checkpoint), check_template(checkpoint), load_tokenizer(checkpoint), engine, choose_precision(spec.precision, engine))


def _requests(place: Place, spec: GenerateSpec, evaluation: str, items: list[Item]) -> Iterator[Request]:
    if evaluation not in spec.sampling:
        raise ConfigError(f"generate: no decoding settings for evaluation '{evaluation}' in the spec.")
    sampling = spec.sampling[evaluation]
    for item in items:
        ids = tuple(chat.encode_prompt(place.family, place.tokenizer, item.prompt, item.prefix))
        for index in range(sampling.num_samples):
            seed = derive_seed(spec.seed, evaluation, item.id, index)
            yield Request(_key(place, ids, sampling, seed, index), item.id, index, seed, ids, sampling)


def _key(place: Place, ids: tuple[int, ...], sampling: Sampling, seed: int, index: int) -> str:
    """Everything an answer depends on; the number of samples is not part of it."""
    decoding = sampling.model_dump(exclude={"num_samples"})
    return make_key(
        schema=1,
        weights=place.card.digest,
        template=place.card.template_sha256,
        prompt=ids,
        decoding=decoding,
        seed=seed,
        sample=index,
        engine=place.engine,
        precision=place.precision,
    )


def _answer(checkpoint: Path, place: Place, spec: GenerateSpec, missing: list[Request], store: Store) -> int:
    """Make the missing answers; load the engine only if there are any. Returns tokens written."""
    if not missing:
        return 0
    engine = load_engine(checkpoint, place, spec)
    progress, total = Progress(len(missing), f"generate {spec.checkpoint}", "answers", log=log), 0
    try:
        for done in engine.generate(missing):
            value = {"text": done.text, "finish": done.finish, "num_tokens": done.num_tokens, "engine": place.engine, "precision": place.precision}
            store.put(done.request.key, value)
            progress.update(1, tokens=done.num_tokens)
            total += done.num_tokens
    finally:
        engine.close()
    progress.close()
    lost = [request for request in missing if request.key not in store]
    if lost:
        raise EngineError(f"the {place.engine} engine gave {len(missing) - len(lost)} of {len(missing)} answers. Finished rows are kept; run again.")
    return total


def load_engine(checkpoint: Path, place: Place, spec: GenerateSpec) -> Engine:
    """Return a loaded engine."""
    if place.engine == "vllm":
        from advchain.generate.vllm_engine import VllmEngine

        return VllmEngine(checkpoint, place.family, place.precision)
    from advchain.generate.transformers_engine import TransformersEngine

    return TransformersEngine(checkpoint, place.family, place.precision, spec.batch_tokens)


def _response(place: Place, item: Item, request: Request, value: Mapping[str, Any]) -> Response:
    thinking, answer, state = chat.split_response(place.family, value["text"], item.prefix)
    return Response(
        id=f"{item.id}#{request.sample_index}",
        item_id=item.id,
        sample_index=request.sample_index,
        seed=request.seed,
        text=value["text"],
        thinking=thinking,
        answer=answer,
        state=state,
        finish=value["finish"],
        num_prompt_tokens=len(request.prompt_ids),
        num_tokens=value["num_tokens"],
        **item.model_dump(include={"benchmark", "nature", "prompt", "request", "category", "prefix", "reference"}),
    )


def _counts(rows: list[Response], place: Place) -> dict[str, Any]:
    states = {state: sum(row.state == state for row in rows) for state in ("closed", "unclosed", "absent")}
    return states | {"truncated": sum(row.finish == "length" for row in rows), "engine": place.engine, "precision": place.precision}
