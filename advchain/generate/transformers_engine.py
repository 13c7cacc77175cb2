"""The engine that runs anywhere: a plain decoding loop over transformers' exact model code.

Rows share a fixed number of cache slots; a finished row makes room for the next at once (continuous batching), so no time goes into
padding. Each row samples with its own random numbers (`sampling.py`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from advchain import chat
from advchain.errors import EngineError
from advchain.generate.engine import Completion, OutOfMemory, Precision, Request, has_gpu, is_out_of_memory
from advchain.generate.sampling import penalise, pick_tokens, uniform_numbers
from advchain.generate.slots import SlotCache
from advchain.models import load_tokenizer

log = logging.getLogger(__name__)


@dataclass
class Row:
    """A request being answered. `start` is its first column in the cache."""

    request: Request
    uniforms: torch.Tensor
    start: int = 0
    tokens: list[int] = field(default_factory=list)
    seen: torch.Tensor | None = None  # [vocabulary], bool: tokens of prompt and response, where a repetition penalty asks for them

    @property
    def position(self) -> int:
        """Position of the last token, which is fed next."""
        return len(self.request.prompt_ids) + len(self.tokens) - 1


class TransformersEngine:
    """One model in memory. `batch_tokens` bounds cache columns times rows."""

    def __init__(self, folder: Path, family: chat.Family, precision: Precision, batch_tokens: int) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.stops = frozenset(chat.stop_ids(family, self.tokenizer))
        self.batch_tokens = batch_tokens
        self.device = torch.device("cuda" if has_gpu() else "cpu")
        self.model = _load(folder, precision).to(self.device)

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Answer every request once; the longest budgets first, so that the end of the run is not one long row. Yields after every step.

        Raises:
            OutOfMemory: no room for the cache at this `batch_tokens`.
        """
        ordered = sorted(requests, key=lambda request: request.length, reverse=True)
        try:
            for _, group in groupby(ordered, key=lambda request: request.sampling.max_new_tokens):
                yield from _Batch(self, list(group)).run()
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError; a CPU's allocator raises the plain one
            if is_out_of_memory(error):
                raise OutOfMemory(str(error).splitlines()[0]) from error
            raise

    def close(self) -> None:
        """Drop the model."""
        del self.model


def _load(folder: Path, precision: Precision) -> Any:
    import transformers

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        kind = OutOfMemory if is_out_of_memory(error) else EngineError
        raise kind(f"transformers cannot load {folder}: {error}") from error
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise EngineError(f"{folder} has {sorted(kinds)} layers; the transformers engine only knows full attention. Set evaluation.engine to vllm for it.")
    return model.eval()


class _Batch:
    """Requests of one token budget, their cache slots, and the loop over both."""

    def __init__(self, engine: TransformersEngine, requests: list[Request]) -> None:
        self.engine, self.device = engine, engine.device
        self.queue = deque(requests)  # longest prompt first, so every later prompt fits left of the window's end
        span = max(len(request.prompt_ids) + request.sampling.max_new_tokens for request in requests)
        columns = span + max(16, span // 4)  # slack: the window is moved back to column 0 once per span // 4 tokens at most
        self.slots = max(1, min(len(requests), engine.batch_tokens // span))
        self.cache = SlotCache(engine.model.config.num_hidden_layers, self.slots, columns)
        self.rows: list[Row] = []

    def _admit(self) -> torch.Tensor:
        """Run the prompts of waiting requests, put them into free slots, return their next-token logits."""
        new = [self.queue.popleft() for _ in range(min(self.slots - len(self.rows), len(self.queue)))]
        width = max(len(request.prompt_ids) for request in new)
        ids = torch.zeros(len(new), width, dtype=torch.long)
        mask = torch.zeros(len(new), width, dtype=torch.long)
        for index, request in enumerate(new):
            ids[index, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            mask[index, width - len(request.prompt_ids) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits, prefill = self._forward(input_ids=ids, attention_mask=mask, position_ids=positions)
        if not self.rows:
            self.cache.window.end = width
        for index, request in enumerate(new):
            row = Row(request, uniform_numbers(request.seed, request.sampling.max_new_tokens))
            row.start = self.cache.enter(len(self.rows), prefill, index, len(request.prompt_ids))
            self.rows.append(row)
        self._resize()
        return logits

    def _step(self) -> torch.Tensor:
        """Feed each row's last token and return its next-token logits."""
        by = self.cache.shift()
        for row in self.rows:
            row.start -= by
        window = self.cache.window
        columns = torch.arange(window.start, window.end + 1)
        starts = torch.tensor([row.start for row in self.rows])
        logits, _ = self._forward(
            input_ids=torch.tensor([[row.tokens[-1]] for row in self.rows]),
            position_ids=torch.tensor([[row.position] for row in self.rows]),
            attention_mask=(columns >= starts[:, None])[:, None, None],
            past_key_values=self.cache,
        )
        window.end += 1
        return logits

    def _forward(self, past_key_values: Any = None, **inputs: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the last token's logits [rows, vocabulary] and the cache."""
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        with torch.inference_mode():
            out = self.engine.model(**moved, past_key_values=past_key_values, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    def run(self) -> Iterator[list[Completion]]:
        """Decode until every request is answered; yields what each step finished."""
        while self.queue or self.rows:
            free = self.slots - len(self.rows)
            if self.queue and (not self.rows or free >= max(1, self.slots // 8)):
                old = len(self.rows)
                logits = self._admit()
            else:
                old = 0
                logits = self._step()
            yield self._take(old, logits)

    def _take(self, old: int, logits: torch.Tensor) -> list[Completion]:
        """Append one token to the rows from `old` on and let finished rows go."""
        rows = self.rows[old:]
        settings = [row.request.sampling for row in rows]
        uniforms = torch.stack([row.uniforms[len(row.tokens)] for row in rows])
        logits = self._penalised(rows, logits)
        tokens = pick_tokens(
            logits,
            temperature=torch.tensor([setting.temperature for setting in settings], device=self.device),
            top_p=torch.tensor([setting.top_p for setting in settings], device=self.device),
            top_k=torch.tensor([setting.top_k for setting in settings], device=self.device),
            uniforms=uniforms.to(self.device),
        )
        finished = []
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.tokens.append(token)
            if token in self.engine.stops or len(row.tokens) == row.request.sampling.max_new_tokens:
                finished.append(row)
        for row in finished:
            self._leave(row)
        self._resize()
        return [self._complete(row) for row in finished]

    def _penalised(self, rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor:
        """Return the logits with each row's repetition penalty."""
        if all(row.request.sampling.repetition_penalty == 1 for row in rows):
            return logits
        return torch.stack([self._penalised_row(row, own) for row, own in zip(rows, logits.float(), strict=True)])

    def _penalised_row(self, row: Row, logits: torch.Tensor) -> torch.Tensor:
        penalty = row.request.sampling.repetition_penalty
        if penalty == 1:
            return logits
        if row.seen is None:
            row.seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            row.seen[list(row.request.prompt_ids)] = True
        row.seen[row.tokens[-1:]] = True
        return penalise(logits, row.seen, penalty)

    def _complete(self, row: Row) -> Completion:
        stopped = row.tokens[-1] in self.engine.stops
        ids = row.tokens[:-1] if stopped else row.tokens
        text = self.engine.tokenizer.decode(ids, skip_special_tokens=False)
        return Completion(row.request, text, "stop" if stopped else "length", len(row.tokens))

    def _leave(self, row: Row) -> None:
        """Fill the freed slot with the last row, so that active rows stay a block."""
        place = next(index for index, other in enumerate(self.rows) if other is row)
        last = self.rows.pop()
        if last is not row:
            self.cache.move(len(self.rows), place)
            self.rows[place] = last

    def _resize(self) -> None:
        window = self.cache.window
        window.rows = len(self.rows)
        window.start = min((row.start for row in self.rows), default=window.end)
