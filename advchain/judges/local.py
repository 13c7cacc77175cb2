"""What the judges with weights of their own share: one published prompt per answer, greedy text, and the chances of the first token.

A judge says in its file how a prompt is rendered and how a reply is read. Content cannot spell a control token of the tokenizer or a line that belongs to
the template (`fence`); BOS stands once at the front; an answer that does not fit is cut at its end, and its verdict says so. Replies are kept under `work`
as they come, so a kill costs one batch, and two judges that read the same reply (WildGuard's refusal and harm) ask for it once.
"""

from __future__ import annotations

import hashlib
import logging
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import Field

from advchain.errors import AccessError, ConfigError
from advchain.judges.base import AnswerJudge, Options, make_verdict
from advchain.progress import Progress
from advchain.records import Label, Response, Verdict
from advchain.specs import JudgeSpec
from advchain.store import Store, make_key

log = logging.getLogger(__name__)


class LocalOptions(Options):
    """Which weights and how many at a time. `path` is a local folder and wins over `model`, a hub id; where it holds an adapter, over `adapter`."""

    model: str
    revision: str | None = None
    path: str | None = None
    adapter: str | None = Field(default=None, description="a LoRA adapter on the hub that is merged into `model`; needs peft")
    batch_tokens: int = Field(default=16384, ge=1, description="padded prompt tokens in one batch")
    max_prompt_tokens: int = Field(default=8192, ge=512, description="a longer answer is cut at its end, and the verdict says so")
    max_answer_tokens: int | None = Field(default=None, ge=1, description="the same for the answer alone, where the published protocol has such a limit")


class Reading(NamedTuple):
    """What a judge reads out of a reply."""

    label: Label
    score: float | None
    detail: Mapping[str, Any] = MappingProxyType({})


class LocalJudge(AnswerJudge):
    """One prompt, one short greedy reply. Subclasses say which words' chances are looked at, how to render and how to read."""

    CHOICES: tuple[str, ...] = ()  # words with which a reply can begin; `read` gets their chances, which sum to 1
    MAX_NEW_TOKENS = 24

    def __init__(self, spec: JudgeSpec, options: LocalOptions, work: Path) -> None:
        super().__init__(spec.name)
        self.options = options
        self.tokenizer, self.model, self.weights = load_weights(spec.name, options)
        self.added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        self.choice_ids = [self.tokenizer.encode(word, add_special_tokens=False)[0] for word in self.CHOICES]
        self.replies: Path = work / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.weights)}.replies"

    @abstractmethod
    def render(self, request: str, answer: str) -> str:
        """Return the published prompt without BOS; both texts are escaped."""

    @abstractmethod
    def read(self, text: str, chances: list[float]) -> Reading:
        """Return the reading of a reply; its label is unparsed when it is not exactly a verdict."""

    def fence(self, text: str) -> str:
        """Escape what in a text could be taken for the template; everything else stays byte for byte."""
        return text

    def judge_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Judge in batches of similar length; verdicts come back in the order given, equal prompts get one reply."""
        prompts = [self.prompt_ids(response) for response in responses]
        keys = [make_key(weights=self.weights, prompt=ids, choices=self.CHOICES, max_new_tokens=self.MAX_NEW_TOKENS) for ids, _ in prompts]
        progress = Progress(len(responses), f"judge {self.name}", "answers", log=log)
        with Store(self.replies) as store:
            missing = {key: ids for key, (ids, _) in zip(keys, prompts, strict=True) if key not in store}
            waiting = list(missing.items())
            for batch in batches([len(ids) for _, ids in waiting], self.options.batch_tokens):
                rows = [waiting[index] for index in batch]
                for (key, _), (text, chances) in zip(rows, self.assess([ids for _, ids in rows]), strict=True):
                    store.put(key, {"text": text, "chances": chances}, sync=False)
                store.sync()
                progress.update(len(batch), tokens=sum(len(ids) for _, ids in rows))
            replies = [store.get(key) for key in keys]
        return [self._verdict(response, reply, cut) for response, reply, (_, cut) in zip(responses, replies, prompts, strict=True)]

    def _verdict(self, response: Response, reply: Any, cut: bool) -> Verdict:
        label, score, detail = self.read(reply["text"], reply["chances"])
        if label == "unparsed":
            detail = {**detail, "reply": reply["text"][:80]}
        score = None if score is None else round(score, 6)
        return make_verdict(self.name, response, label, score, **detail, model=self.weights, **({"cut": True} if cut else {}))

    def prompt_ids(self, response: Response) -> tuple[list[int], bool]:
        """Return (token ids with BOS exactly once, whether the answer was cut to fit)."""
        request, answer, limit = response.request or response.prompt, response.answer.strip(), self.options.max_prompt_tokens
        whole = answer
        if self.options.max_answer_tokens is not None:
            answer = self._head(answer, self.options.max_answer_tokens)
        ids = self._encode(request, answer)
        while len(ids) > limit and answer:
            answer = answer[: int(len(answer) * 0.95 * limit / len(ids))]
            ids = self._encode(request, answer)
        assert ids.count(self.tokenizer.bos_token_id) == 1, "the prompt must hold BOS exactly once"
        return ids, answer != whole

    def _head(self, text: str, num_tokens: int) -> str:
        """The longest beginning that has at most so many tokens, found through the tokenizer's offsets."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(offsets) <= num_tokens else text[: offsets[num_tokens - 1][1]]

    def _encode(self, request: str, answer: str) -> list[int]:
        text = self.render(*(self.fence(break_tokens(part.strip(), self.added)) for part in (request, answer)))
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return [self.tokenizer.bos_token_id, *ids]

    def assess(self, prompts: list[list[int]]) -> list[tuple[str, list[float]]]:
        """Return (greedy text, chances of CHOICES at its first token) of each prompt; left padding with its mask."""
        import torch

        width, pad = max(map(len, prompts)), self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self.model.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=self.MAX_NEW_TOKENS, do_sample=False, temperature=None, top_p=None, top_k=None,
                pad_token_id=pad, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        chances = out.logits[0][:, self.choice_ids].float().softmax(dim=-1).tolist()
        return list(zip(self.tokenizer.batch_decode(out.sequences[:, width:], skip_special_tokens=True), chances, strict=True))

    def close(self) -> None:
        """Free the weights."""
        import torch

        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def break_tokens(text: str, added: Iterable[str]) -> str:
    """Put a space into each control token that a text spells, so that the tokenizer makes text of it."""
    for token in added:
        if len(token) > 1 and not token.isspace():
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def fill(template: str, **parts: str) -> str:
    """Fill `{name}` fields in one pass: braces and markers inside a part are not looked at."""
    return re.sub(r"\{(" + "|".join(parts) + r")\}", lambda match: parts[match[1]], template)


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Yield indices, shortest first, so that (rows x longest) of a batch stays within `max_tokens`; a single long row is a batch."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Places(NamedTuple):
    """Where weights come from: a whole model, and an adapter that is merged into it (None: there is none)."""

    model: str
    revision: str | None
    adapter: str | None


def places(name: str, options: LocalOptions) -> Places:
    """Return where the weights are. A `path` with a whole model stands for model and adapter, one with an adapter for the adapter alone.

    Raises:
        ConfigError: `path` holds neither.
    """
    if options.path is None:
        return Places(options.model, options.revision, options.adapter)
    if (Path(options.path) / "adapter_config.json").is_file():
        return Places(options.model, options.revision, options.path)
    if not (Path(options.path) / "config.json").is_file():
        raise ConfigError(
            f"judges.{name}.options.path: {options.path} holds no config.json. Give the folder of a downloaded {options.adapter or options.model}."
        )
    return Places(options.path, None, None)


def load_weights(name: str, options: LocalOptions) -> tuple[Any, Any, str]:
    """Return (tokenizer, model, which weights they are) from a local folder or the hub, an adapter merged in.

    Raises:
        AccessError: gated, absent or offline; names the page, HF_TOKEN and the `path` option.
        ConfigError: `path` is no folder with a model, or the adapter does not fit the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = places(name, options)
    gpus = torch.cuda.device_count()
    kind: dict[str, Any] = {"device_map": "auto" if gpus > 1 else {"": "cuda"}, "dtype": torch.bfloat16} if gpus else {"dtype": torch.float32}
    try:
        # no code of the repository: neither its classes, nor its attention, nor what unpickling its weights would run
        kind |= {"attn_implementation": "sdpa", "use_safetensors": True}
        tokenizer = AutoTokenizer.from_pretrained(where.model, revision=where.revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(where.model, revision=where.revision, trust_remote_code=False, **kind)
        if where.adapter is not None:
            model = merge_adapter(name, model, where.adapter)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        if where.model == options.path:
            raise ConfigError(f"judges.{name}.options.path: {options.path} does not load ({type(error).__name__}). Download {options.model} again.") from error
        raise AccessError(
            f"judge {name}: the weights of {options.model} cannot be had ({type(error).__name__}). They are gated: accept the terms at "
            f"https://huggingface.co/{options.model}, set HF_TOKEN to a token of that account, and run again; or give a downloaded folder with the judge's "
            "option `path`. Without them, use the judges string_match and refusal_phrases."
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.eval(), "+".join(_mark(options, where, model))


def merge_adapter(name: str, model: Any, adapter: str) -> Any:
    """Return the model with a LoRA adapter (a folder or a hub id) merged into its weights.

    Raises:
        ConfigError: peft is not installed, or the adapter is for another model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError(
            f"judge {name}: its weights are an adapter, {adapter}, which needs peft. Install the pins of envs/laptop.txt, or merge it once."
        ) from error
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except UnpicklingError as error:
        raise ConfigError(f"judge {name}: the weights of the adapter {adapter} are pickled and hold more than numbers: not loaded. Use safetensors.") from error
    except (RuntimeError, KeyError) as error:
        raise ConfigError(f"judge {name}: the adapter {adapter} does not fit {model.config.name_or_path}. Name the adapter's own base with `model`.") from error


def _mark(options: LocalOptions, where: Places, model: Any) -> Iterator[str]:
    """Yield which model, and which adapter, the weights are."""
    commit = getattr(model.config, "_commit_hash", None) or where.revision or "main"
    yield f"{options.model}@{(folder_mark(Path(where.model)) if Path(where.model).is_dir() else str(commit))[:12]}"
    if where.adapter is not None:
        yield f"{options.adapter}@{folder_mark(Path(where.adapter))[:12] if Path(where.adapter).is_dir() else 'main'}"


def folder_mark(folder: Path) -> str:
    """Return a hash that tells model folders apart without reading all of their weights: names, sizes and first MiB of each file."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(1 << 20))
    return digest.hexdigest()
