"""From a trained engine to a model folder: whole weights, tokenizer, chat template, generation config; checked before it counts."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import EngineError
from advchain.io import write_json, write_text
from advchain.models import CARD, load_tokenizer, read_config
from advchain.train import lora

log = logging.getLogger(__name__)

NOT_COPIED = (CARD, "config.json")
COPIED = ("*.json", "*.jinja", "*.txt", "*.model")  # tokenizer, chat template, generation config; never weights
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
STORED = {"bfloat16": "BF16", "float32": "F32"}  # as safetensors headers call them
TEMPLATE = "chat_template.jinja"
QUESTION = "What is two plus two?"


def whole_weights(model: Any, keep: bool) -> dict[str, Any]:
    """Return name -> tensor on the CPU, gathering what ZeRO-3 has partitioned; every process calls this, one keeps the result.

    A tied head has the embedding's tensor and appears once, under the embedding's name. Adapters are merged, and appear beside.
    """
    from deepspeed import zero

    if lora.has_adapters(model):
        return lora.merged_weights(model, keep)

    weights = {}
    for name, parameter in model.named_parameters():
        with zero.GatheredParameters([parameter]):
            if keep:
                weights[name] = parameter.detach().to("cpu", copy=True).contiguous()
    return weights


def tied_names(model: Any) -> set[str]:
    """Return the names of parameters that are another one's second name (a tied head)."""
    first = {name for name, _ in model.named_parameters()}
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - first


def write_model(folder: Path, base: Path, weights: dict[str, Any], precision: str) -> None:
    """Write safetensors, config.json with the right dtype, and copies of the base model's tokenizer, template and generation config."""
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(weights, folder, metadata={"format": "pt"})
    for path in sorted({path for pattern in COPIED for path in base.glob(pattern)}):
        if path.name not in NOT_COPIED and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)
    config = read_config(base)
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": DTYPES[precision]})


def write_serving_files(folder: Path, family: chat.Family) -> None:
    """See that any program can serve the folder: the family's EOS ends a generation, and the chat template renders the prompt that was trained on.

    The base model's own template stays where it does that; else one is made from the family.
    """
    path = folder / "generation_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    known = config.get("eos_token_id")
    ends = known if isinstance(known, list) else [] if known is None else [known]
    eos = load_tokenizer(folder).token_to_id(family.eos)
    if eos not in ends:
        write_json(path, config | {"eos_token_id": [*ends, eos]})
    if rendered_prompt(folder) != chat.prompt_text(family, QUESTION):
        write_text(folder / TEMPLATE, family_template(family))


def family_template(family: chat.Family) -> str:
    """Return a Jinja chat template of user and assistant turns that renders what the family renders."""
    before, after, eos = (json.dumps(text, ensure_ascii=False) for text in (family.before, family.after, family.eos))
    user = "{{ " + before + " + message['content'] }}{% if add_generation_prompt or not loop.last %}{{ " + after + " }}{% endif %}"
    other = "{{ raise_exception('this model was trained on user prompts only') }}"
    return (
        "{% for message in messages %}{% if message['role'] == 'user' %}" + user + "{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + " + eos + " }}{% else %}" + other + "{% endif %}{% endfor %}"
    )


def rendered_prompt(folder: Path) -> str | None:
    """Return what the folder's own chat template makes of a question, or says against it; None without a template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.chat_template is None:
        return None
    try:
        return str(tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True))
    except Exception as error:  # whatever a template of others does in transformers' sandbox; it is then no template for this prompt
        return f"the error '{error}'"


def check_export(folder: Path, base: Path, tied: Iterable[str] = ()) -> None:
    """Compare the written weights with the base model's and with config.json: same names and shapes, the promised dtype, a tied head
    once, nothing empty, nothing NaN (RELIABILITY C13).

    Raises:
        EngineError: names the tensor.
    """
    written, expected = tensor_shapes(folder), tensor_shapes(base)
    for name in sorted({*written, *expected}):
        if name in written and name in tied:
            raise EngineError(f"{folder}: tensor '{name}' is tied to another one and was written a second time.")
        if name not in written and name not in tied:
            raise EngineError(f"{folder}: tensor '{name}' of the base model is missing from the export.")
        if name not in expected:
            raise EngineError(f"{folder}: tensor '{name}' is not in the base model {base}.")
        if name in written and written[name] != expected[name]:
            raise EngineError(f"{folder}: tensor '{name}' has shape {written[name]}, the base model's has {expected[name]}.")
    _check_values(folder)


def check_serving_files(folder: Path, family: chat.Family) -> None:
    """Check tokenizer and chat template of a written folder (RELIABILITY C13).

    Raises:
        EngineError: there is no template, or it renders another prompt than the one trained on.
    """
    rendered, trained = rendered_prompt(folder), chat.prompt_text(family, QUESTION)
    if rendered is None:
        raise EngineError(f"{folder}: the tokenizer has no chat template ({TEMPLATE}), so no other program would know how to prompt this model.")
    if rendered != trained:
        raise EngineError(f"{folder}/{TEMPLATE} renders {rendered!r} where the training rendered {trained!r} (family '{family.name}').")


def tensor_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Return tensor name -> shape from the headers of a folder's safetensors files."""
    return {name: tuple(part.get_slice(name).get_shape()) for part in _open_parts(folder) for name in part.keys()}  # noqa: SIM118  # no mapping


def _open_parts(folder: Path) -> Iterator[Any]:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as part:
            yield part


def _check_values(folder: Path) -> None:
    promised = STORED[read_config(folder)["dtype"]]
    for part in _open_parts(folder):
        for name in part.keys():  # noqa: SIM118
            dtype, tensor = part.get_slice(name).get_dtype(), part.get_tensor(name)
            if dtype != promised:
                raise EngineError(f"{folder}: tensor '{name}' is stored as {dtype}, config.json promises {promised}.")
            if not tensor.numel():
                raise EngineError(f"{folder}: tensor '{name}' is empty: the weights were not gathered.")
            if not bool(tensor.isfinite().all()):
                raise EngineError(f"{folder}: tensor '{name}' holds NaN or infinity. Lower the learning rate.")


def try_generation(folder: Path, family: chat.Family, num_tokens: int = 8) -> int:
    """Load the written folder as any program would and decode a few tokens greedily; return how many came.

    Raises:
        EngineError: weights are missing or unknown, or nothing comes out.
    """
    import torch
    from transformers import AutoModelForCausalLM

    ours = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True, **ours)
    wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if report.get(key)}
    if wrong:
        raise EngineError(f"{folder} does not load cleanly: {wrong}.")
    prompt = torch.tensor([chat.encode_prompt(family, load_tokenizer(folder), QUESTION)])
    with torch.inference_mode():
        made = model.eval().generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=num_tokens)
    count = int(made.shape[1] - prompt.shape[1])
    if count < 1:
        raise EngineError(f"{folder}: the trained model writes nothing.")
    return count
