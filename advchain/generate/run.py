"""Answer every prompt of a checkpoint with engines loaded once, resumably; then write one response file per evaluation.

A finished row is in the store at once, keyed by everything it depends on (weights, rendering, prompt, decoding, seed, engine), so a kill
loses what is in flight and a changed benchmark asks only its own prompts again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advchain import chat
from advchain.errors import ConfigError, DataError, EngineError, did_you_mean
from advchain.generate.endpoint_engine import EndpointEngine, question_of
from advchain.generate.engine import Completion, EngineName, Precision, Request, Settings, choose_engine, choose_precision, forced
from advchain.generate.layout import engine_gpus, gpu_memory, parallel_size, visible_gpus
from advchain.generate.replicas import answer
from advchain.io import read_records
from advchain.manifests import StageTimer, make_manifest, write_manifest, write_stage
from advchain.models import CARD, ModelCard, check_template, check_weights, load_model_card, load_tokenizer, read_config
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
    context: int
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
        ConfigError: a prompt and its `max_new_tokens` do not fit into the model's context.
    """
    timer = StageTimer()
    check_weights(checkpoint)
    engine = choose_engine(spec.engine)
    place = _place(checkpoint, engine, choose_precision(spec.precision, engine, gpu=bool(visible_gpus())))
    with Store(store) as finished:
        wanted = [request for name, path in prompts.items() for request in _requests(place, spec, name, read_records(path, Item))]
        missing = [request for request in wanted if request.key not in finished]
        log.info("generate %s: %d answers wanted, %d to make with %s %s", spec.checkpoint, len(wanted), len(missing), place.engine, place.precision)
        tokens, seconds = _answer(checkpoint, place, spec, missing, finished)
    manifest = make_manifest("generate", spec.model_dump(mode="json"), [*prompts.values(), checkpoint / CARD], timer)
    counts = {"wanted": len(wanted), "generated": len(missing), "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1) if seconds else None}
    write_manifest(marker, manifest | {"gpus": len(visible_gpus()), "engine": place.engine, "precision": place.precision, "counts": counts})


def write_responses(prompts: Path, store: Path, checkpoint: Path, output: Path, spec: GenerateSpec, evaluation: str) -> None:
    """Write the Response rows of one evaluation, in prompt order, from the store.

    Raises:
        EngineError: a row is missing; says which rule to force.
    """
    timer = StageTimer()
    finished, items = read_store(store), read_records(prompts, Item)
    inputs, made = [prompts, checkpoint / CARD], spec.model_dump(mode="json")
    if not items:  # a further round of an attack that this checkpoint never came back from
        write_stage(output, [], stage="responses", spec=made, inputs=inputs, timer=timer)
        return
    for engine, precision in _sets(finished, spec):
        place = _place(checkpoint, engine, precision)
        requests = list(_requests(place, spec, evaluation, items))
        if all(request.key in finished for request in requests):
            by_id = {item.id: item for item in items}
            rows = [_response(place, by_id[request.item_id], request, finished[request.key]) for request in requests]
            filtered = sum(finished[request.key].get("finish_reason") == "content_filter" for request in requests)
            write_stage(output, rows, stage="responses", spec=made, inputs=inputs, counts=_counts(rows, place, filtered), timer=timer)
            return
    raise EngineError(f"{store} does not hold every answer to {evaluation} of {spec.checkpoint}. Run again with --forcerun generate.")


def _sets(finished: Mapping[str, Any], spec: GenerateSpec) -> list[tuple[EngineName, Precision]]:
    """Engines and precisions that filled the store, the latest first: another machine may have, and answers of two are never mixed."""
    found = dict.fromkeys(reversed([(value["engine"], value["precision"]) for value in finished.values()]))
    return [(engine, precision) for engine, precision in found if spec.engine in ("auto", engine) and spec.precision in ("auto", precision)]


def _place(checkpoint: Path, engine: EngineName, precision: Precision) -> Place:
    card, family = load_model_card(checkpoint), check_template(checkpoint)
    if engine == "endpoint":
        return Place(card, family, None, 1 << 30, engine, precision)
    context = int(read_config(checkpoint).get("max_position_embeddings", 1 << 30))
    return Place(card, family, load_tokenizer(checkpoint), context, engine, precision)


def _requests(place: Place, spec: GenerateSpec, evaluation: str, items: list[Item]) -> Iterator[Request]:
    if evaluation not in spec.sampling:
        raise ConfigError(f"generate: no decoding settings for evaluation '{evaluation}' in the spec; {did_you_mean(evaluation, spec.sampling)}")
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f"evaluation '{evaluation}': item {twice[0]} is there twice ({len(twice)} such ids). Remove duplicates where the prompts are made.")
    sampling = spec.sampling[evaluation]
    for item in items:
        ids, asked = _prompt(place, spec, item, evaluation)
        if len(ids) + sampling.max_new_tokens > place.context:
            raise ConfigError(
                f"evaluation '{evaluation}', item {item.id}: {len(ids)} prompt tokens and max_new_tokens {sampling.max_new_tokens} do not fit into "
                f"the model's context of {place.context}. Lower max_new_tokens for this evaluation."
            )
        for index in range(sampling.num_samples):
            seed = derive_seed(spec.seed, evaluation, item.id, index)
            yield Request(_key(place, ids or asked, sampling, seed, index), item.id, index, seed, ids, sampling, *asked)


def _prompt(place: Place, spec: GenerateSpec, item: Item, evaluation: str) -> tuple[tuple[int, ...], tuple[str, bool]]:
    """Return the prompt's token ids and no question; for an endpoint no ids, the question and whether it is rendered."""
    if spec.endpoint is not None:
        return (), question_of(place.family, item, spec.endpoint, evaluation)
    return tuple(chat.encode_prompt(place.family, place.tokenizer, item.prompt, forced(item))), ("", False)


def _key(place: Place, prompt: tuple[int | str, ...], sampling: Sampling, seed: int, index: int) -> str:
    """Everything an answer depends on; the number of samples is not part of it."""
    decoding = sampling.model_dump(exclude={"num_samples"} | ({"repetition_penalty"} if sampling.repetition_penalty == 1 else set()))
    return make_key(
        schema=1,
        weights=place.card.digest,
        template=place.card.template_sha256,
        prompt=prompt,
        decoding=decoding,
        seed=seed,
        sample=index,
        engine=place.engine,
        precision=place.precision,
    )


def _answer(checkpoint: Path, place: Place, spec: GenerateSpec, missing: list[Request], store: Store) -> tuple[int, float]:
    """Make the missing answers; load an engine only if there are any. Returns tokens written and seconds since the first answer was asked for."""
    if not missing:
        return 0, 0.0
    timer = StageTimer()
    progress, total = Progress(len(missing), f"generate {spec.checkpoint}", "answers", log=log), 0
    for done in _ask(checkpoint, place, spec, missing, store):
        value = {"text": done.text, "finish": done.finish, "num_tokens": done.num_tokens, "engine": place.engine, "precision": place.precision}
        store.put(done.request.key, value | dict(done.facts))
        progress.update(1, tokens=done.num_tokens)
        total += done.num_tokens
    progress.close()
    lost = [request for request in missing if request.key not in store]
    if lost:
        raise EngineError(f"the {place.engine} engine gave {len(missing) - len(lost)} of {len(missing)} answers. Finished rows are kept; run again.")
    return total, timer.seconds()


def _ask(checkpoint: Path, place: Place, spec: GenerateSpec, missing: list[Request], store: Store) -> Iterator[Completion]:
    """Yield completions as they come, from an endpoint or from engine processes on this machine."""
    if spec.endpoint is not None:
        values = [value for value in store.values() if "num_prompt_tokens" in value]
        bought = sum(value["num_prompt_tokens"] for value in values), sum(value["num_tokens"] for value in values)
        for finished in EndpointEngine(spec.endpoint, bought).generate(missing):
            yield from finished
        return
    settings, gpus = plan_engines(checkpoint, place, spec, max(len(request.prompt_ids) + request.sampling.max_new_tokens for request in missing))
    yield from answer(settings, gpus, missing, spec.stall_seconds)


def plan_engines(checkpoint: Path, place: Place, spec: GenerateSpec, longest: int) -> tuple[Settings, list[list[str]]]:
    """Return how each engine process is loaded, and the GPUs of each.

    Raises:
        ConfigError: the model cannot be split as asked, or does not fit.
    """
    gpus = visible_gpus()
    size = parallel_size(checkpoint, len(gpus), spec.tensor_parallel, gpu_memory(gpus)) if gpus and place.engine == "vllm" else 1
    settings = Settings(str(checkpoint), place.engine, place.precision, longest, spec.batch_tokens, spec.max_sequences, size)
    groups = engine_gpus(gpus, size, spec.replicas)
    log.info("generate %s: %d engine processes, %s", spec.checkpoint, len(groups), f"{size} GPUs each" if gpus else "on the CPU")
    return settings, groups


def _response(place: Place, item: Item, request: Request, value: Mapping[str, Any]) -> Response:
    thinking, answer, state = chat.split_response(place.family, value["text"], forced(item))
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
        num_prompt_tokens=value.get("num_prompt_tokens", len(request.prompt_ids)),
        num_tokens=value["num_tokens"],
        **item.model_dump(exclude={"id"}),
    )


def _counts(rows: list[Response], place: Place, filtered: int) -> dict[str, Any]:
    states = {state: sum(row.state == state for row in rows) for state in ("closed", "unclosed", "absent")}
    return states | {"truncated": sum(row.finish == "length" for row in rows), "filtered": filtered, "engine": place.engine, "precision": place.precision}
