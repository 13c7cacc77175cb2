"""The vLLM engine, for GPUs (and CPUs where its environment is present): one offline engine, prompts as token ids, rows as they finish."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import EngineError
from advchain.generate.engine import Completion, OutOfMemory, Request, Settings, has_gpu, is_out_of_memory
from advchain.models import load_tokenizer

log = logging.getLogger(__name__)

# A pretrained model copies; an engine that computes attention wrongly does not (vLLM's compiled bf16 on a CPU: fluent nonsense).
CANARY = "apple, river, stone, cloud, apple, river, stone, cloud, apple, river, stone, cloud, apple, river,"
CANARY_ANSWER = " stone, cloud, apple"
CPU_CACHE_GB = "2"
# In this process, which is one of its own already. vLLM's own two of them on a CPU wait for each other without sleeping, a core each, and every engine of a
# machine binds itself to the same cores: two jobs on two cores shared one.
CPU_OPTIONS = {"distributed_executor_backend": "uni", "enable_chunked_prefill": False}
CPU_BATCHED_TOKENS = 4096  # of a step; whole prompts only: vLLM 0.33 takes back a seeded draw after a part of a prompt in a way that only GPUs know


class VllmEngine:
    """One vLLM engine. On a CPU: eager, and prompts are read whole."""

    def __init__(self, folder: Path, family: chat.Family, settings: Settings) -> None:
        """Load the model and check that it computes. The cache is sized for `settings.longest`, not for the model's whole context."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GB)
        gpu = has_gpu()
        if not gpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        import vllm

        self.vllm = vllm
        self.tokenizer = load_tokenizer(folder)
        self.stops = chat.stop_ids(family, self.tokenizer)
        try:
            self.llm: Any = vllm.LLM(
                model=str(folder),
                dtype="bfloat16" if settings.precision == "bf16" else "float32",
                max_model_len=max(settings.longest, 512),
                max_num_seqs=settings.max_sequences,
                tensor_parallel_size=settings.tensor_parallel,
                enforce_eager=not gpu,
                **({} if gpu else CPU_OPTIONS | {"max_num_batched_tokens": max(settings.longest, CPU_BATCHED_TOKENS)}),
                enable_prefix_caching=True,
                seed=0,
            )
        except (RuntimeError, ValueError, OSError, AssertionError) as error:
            kind = OutOfMemory if is_out_of_memory(error) else EngineError
            raise kind(f"vLLM cannot load {folder}: {error}. Its own log is above; evaluation.engine: transformers runs anywhere.") from error
        self._check(folder)

    def _check(self, folder: Path) -> None:
        """Greedy-continue a repeated list twice before anything is stored.

        Raises:
            EngineError: the model does not go on with the list, or not twice the same.
        """
        parameters = self.vllm.SamplingParams(temperature=0.0, max_tokens=8, detokenize=False)
        prompt = {"prompt_token_ids": self.tokenizer.encode(CANARY, add_special_tokens=False).ids}
        texts = [self.tokenizer.decode(out.outputs[0].token_ids) for out in self.llm.generate([prompt, prompt], parameters, use_tqdm=False)]
        if not texts[0].startswith(CANARY_ANSWER) or texts[0] != texts[1]:
            raise EngineError(
                f"vLLM fails its start-up check with {folder}: asked to go on with a repeated list, it wrote {texts}. It computes wrongly on this machine "
                "(or the model is no language model). Set evaluation.engine to transformers, or evaluation.precision to fp32."
            )

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Answer every request once, longest first. Yields after every step.

        Raises:
            EngineError: the engine died; completions yielded so far stand.
        """
        ordered = sorted(requests, key=lambda request: request.length, reverse=True)
        engine = self.llm.llm_engine
        try:
            for number, request in enumerate(ordered):
                engine.add_request(f"advchain-{number}", {"prompt_token_ids": list(request.prompt_ids)}, self._parameters(request))
            while engine.has_unfinished_requests():
                finished = [output for output in engine.step() if output.finished]
                yield [self._complete(ordered[int(output.request_id.removeprefix("advchain-"))], output.outputs[0]) for output in finished]
        except (RuntimeError, ValueError, self._dead()) as error:
            raise EngineError(f"vLLM stopped: {error}. Its own log is above") from error

    def _dead(self) -> type[Exception]:
        from vllm.v1.engine.exceptions import EngineDeadError

        dead: type[Exception] = EngineDeadError
        return dead

    def _parameters(self, request: Request) -> Any:
        settings = request.sampling
        return self.vllm.SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            seed=request.seed,
            stop_token_ids=self.stops,
            detokenize=False,
            output_kind=self.vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _complete(self, request: Request, output: Any) -> Completion:
        ids = list(output.token_ids)
        stopped = bool(ids) and ids[-1] in self.stops
        text = self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=False)
        return Completion(request, text, "stop" if stopped else "length", len(ids))

    def close(self) -> None:
        """Drop the engine and its workers."""
        del self.llm
