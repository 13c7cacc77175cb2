"""What is in a model folder: its card (model.json), weights, tokenizer and chat family; every check before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from advchain import chat
from advchain.errors import DataError, EngineError, StorageError
from advchain.io import canonical_json, sha256_file, sha256_text
from advchain.manifests import write_manifest

CARD = "model.json"
HASHED = ("*.safetensors", "config.json", "tokenizer.json")  # what an answer depends on


class ModelCard(BaseModel):
    """model.json. `digest` is one sha256 over `weights_sha256`; `template_sha256` is the chat family's rendering."""

    model_config = ConfigDict(frozen=True)

    name: str
    family: str
    base: str | None
    weights_sha256: dict[str, str]
    digest: str
    template_sha256: str
    spec: dict[str, Any]
    manifest: dict[str, Any]


def hash_weights(folder: Path) -> dict[str, str]:
    """Return file name -> sha256 of weights, config.json and tokenizer.json (about 1 GB/s)."""
    return {path.name: sha256_file(path) for pattern in HASHED for path in sorted(Path(folder).glob(pattern))}


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return one sha256 over the hashes of `hash_weights`."""
    return sha256_text(canonical_json(dict(hashes)))


def weights_digest(folder: Path) -> str:
    """Return one sha256 over weights, config and tokenizer as they are on disk now."""
    return digest_of(hash_weights(folder))


def write_model_card(folder: Path, *, name: str, family: str, base: str | None, spec: Mapping[str, Any], manifest: Mapping[str, Any]) -> ModelCard:
    """Hash the folder's weights and write model.json; the last step of making a model folder.

    Raises:
        EngineError: weights or tokenizer are missing, or the tokenizer does not fit the chat family.
    """
    check_folder(folder, family)
    hashes = hash_weights(folder)
    return _write_card(folder, name, family, base, hashes, digest_of(hashes), spec, manifest)


def write_endpoint_card(folder: Path, *, name: str, family: str, endpoint: str, spec: Mapping[str, Any], manifest: Mapping[str, Any]) -> ModelCard:
    """Write the model.json of a model that is not here: its digest is that of the endpoint's host and model name, and it has no weights to check."""
    return _write_card(folder, name, family, None, {}, sha256_text(endpoint), spec, manifest)


def _write_card(
    folder: Path, name: str, family: str, base: str | None, hashes: dict[str, str], digest: str, spec: Mapping[str, Any], manifest: Mapping[str, Any]
) -> ModelCard:
    card = ModelCard(
        name=name,
        family=family,
        base=base,
        weights_sha256=hashes,
        digest=digest,
        template_sha256=chat.template_digest(chat.family(family)),
        spec=dict(spec),
        manifest=dict(manifest),
    )
    hashed = {Path(folder) / name for name in (CARD, *hashes)}
    others = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path not in hashed)
    write_manifest(Path(folder) / CARD, card.model_dump(mode="json"), others)
    return card


def load_model_card(folder: Path) -> ModelCard:
    """Read model.json.

    Raises:
        StorageError: there is none, so the folder is no finished model.
        DataError: it does not fit.
    """
    path = Path(folder) / CARD
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}. A model folder is complete when it holds {CARD}; make it with its rule.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}. Delete the folder and make it again.") from error


def check_weights(folder: Path) -> ModelCard:
    """Compare every hashed file with model.json, so that a damaged or swapped weight is never used (RELIABILITY B7, C14).

    Raises:
        StorageError: names the file that differs.
    """
    card, found = load_model_card(folder), hash_weights(folder)
    for name in sorted({*card.weights_sha256, *found}):
        if card.weights_sha256.get(name) != found.get(name):
            what = "is missing" if name not in found else "is not listed" if name not in card.weights_sha256 else "has another sha256 than"
            raise StorageError(f"{folder}/{name} {what} in {CARD}: the file was damaged or exchanged. Delete {folder} and make it again.")
    return card


def check_template(folder: Path, family: str | None = None) -> chat.Family:
    """Return the chat family of a model folder after checking that it was made with the same rendering (RELIABILITY G4).

    Args:
        folder: holds model.json.
        family: the family the caller means to use; None takes the folder's own.

    Raises:
        EngineError: another family, or the family's rendering has changed since the folder was made.
    """
    card = load_model_card(folder)
    if family is not None and card.family != family:
        raise EngineError(f"{folder} was made for chat family '{card.family}', not '{family}'. Set `family: {card.family}` for this model, or make it again.")
    known = chat.family(card.family)
    if card.template_sha256 != chat.template_digest(known):
        raise EngineError(f"{folder} was made with another version of the chat family '{card.family}' than advchain/chat.py has now. Make it again.")
    return known


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's `tokenizers.Tokenizer`, independent of what a transformers version makes of the tokenizer's class name.

    Raises:
        EngineError: there is no tokenizer.json or it cannot be read.
    """
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise EngineError(f"{folder} has no tokenizer.json; only models with a fast tokenizer are supported.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise EngineError(f"cannot read {path}: {error}. Fetch the model again, or update the tokenizers package.") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder.

    Raises:
        EngineError: missing or not JSON.
    """
    return _read_json(Path(folder) / "config.json")


def tensor_parallel_size(folder: Path, num_gpus: int) -> int:
    """Return into how many parts an engine can split the model at most.

    Raises:
        EngineError: config.json cannot be read.
    """
    return max(tensor_parallel_sizes(folder, num_gpus))


def tensor_parallel_sizes(folder: Path, num_gpus: int) -> list[int]:
    """Return into how many parts an engine can split the model: numbers of GPUs that divide its heads and fit its key/value heads.

    Raises:
        EngineError: config.json cannot be read.
    """
    config = read_config(folder)
    heads = int(config["num_attention_heads"])
    shared = int(config.get("num_key_value_heads") or heads)
    return [1] + [n for n in range(2, num_gpus + 1) if heads % n == 0 and (shared % n == 0 or n % shared == 0)]


def check_folder(folder: Path, family: str) -> None:
    """Check that a folder can be trained and served: safetensors, a known architecture, a tokenizer that fits the family.

    Raises:
        EngineError: says what is missing.
    """
    weights = list(Path(folder).glob("*.safetensors"))
    if not weights or any(path.stat().st_size == 0 for path in weights):
        raise EngineError(f"{folder} holds no safetensors weights. Pickled weights are not read; convert the model to safetensors first.")
    for path in weights:
        _check_header(path)
    for path in sorted(Path(folder).glob("*.index.json")):
        _check_index(path, {part.name for part in weights})
    refuse_foreign_code(folder)
    chat.encode_prompt(chat.family(family), load_tokenizer(folder), "Hello")


def refuse_foreign_code(folder: Path) -> None:
    """Check that no setting of a model folder makes a library fetch and run code of others (RELIABILITY E4): auto_map, or an attention "owner/name".

    Raises:
        EngineError: names file and key.
    """
    for path in (Path(folder) / "config.json", Path(folder) / "tokenizer_config.json"):
        key = next(_foreign(_read_json(path)), None) if path.is_file() else None
        if key:
            raise EngineError(f"{path} asks for code from the model's repository or another one ({key}), which is never run. Choose a built-in architecture.")


def _foreign(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key == "auto_map" or ("_implementation" in key and "/" in json.dumps(inner)):
            yield key
        yield from _foreign(inner)


def _check_index(path: Path, parts: set[str]) -> None:
    """Refuse an index of weights that leads out of its folder: what it names there would be loaded without being hashed (RELIABILITY E6)."""
    listed = _read_json(path).get("weight_map")
    named = set(map(str, listed.values())) if isinstance(listed, dict) else {"no weight_map"}
    if not named <= parts:
        raise EngineError(f"{path} names '{min(named - parts)}', which is no safetensors file of that folder. Fetch the model again, or remove the index.")


def _check_header(path: Path) -> None:
    """Refuse what only calls itself safetensors: the library that loads it later says so in words of its own."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{path} is no safetensors file ({error}). Fetch the model again, or convert it.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {path}: {error}. A model folder needs the Hugging Face layout.") from error
    return value if isinstance(value, dict) else {}
