"""The vLLM engine, for GPUs (and for CPUs where its environment is present): one offline engine, prompts as token ids."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import EngineError
from advchain.generate.engine import Completion, Precision, Request, has_gpu
from advchain.models import load_tokenizer

log = logging.getLogger(__name__)
CHUNK = 512  # requests handed over at once: finished rows reach the store between chunks


class VllmEngine:
    """One vLLM engine. On a CPU: fp32 and eager only (compiled bf16 was seen to write fluent nonsense)."""

    def __init__(self, folder: Path, family: chat.Family, precision: Precision) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import vllm

        self.vllm = vllm
        self.tokenizer = load_tokenizer(folder)
        self.stops = chat.stop_ids(family, self.tokenizer)
        dtype = "bfloat16" if precision == "bf16" else "float32"
        try:
            self.llm: Any = vllm.LLM(model=str(folder), dtype=dtype, enforce_eager=not has_gpu(), enable_prefix_caching=True, seed=0)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"vLLM cannot load {folder}: {error}. Its own log is above; evaluation.engine: transformers runs anywhere.") from error

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer every request once, longest budgets first.

        Raises:
            EngineError: the engine died; finished chunks stand.
        """
        ordered = sorted(requests, key=lambda request: -request.sampling.max_new_tokens)
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in chunk]
            try:
                outputs = self.llm.generate(prompts, [self._parameters(request) for request in chunk], use_tqdm=False)
            except RuntimeError as error:
                raise EngineError(f"vLLM stopped: {error}. Finished rows are kept; run again.") from error
            for request, output in zip(chunk, outputs, strict=True):
                yield self._complete(request, output.outputs[0])

    def _parameters(self, request: Request) -> Any:
        settings = request.sampling
        return self.vllm.SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_new_tokens,
            seed=request.seed,
            stop_token_ids=self.stops,
            detokenize=False,
        )

    def _complete(self, request: Request, output: Any) -> Completion:
        ids = list(output.token_ids)
        stopped = bool(ids) and ids[-1] in self.stops
        text = self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=False)
        return Completion(request, text, "stop" if stopped else "length", len(ids))

    def close(self) -> None:
        """Drop the engine and its workers."""
        del self.llm
