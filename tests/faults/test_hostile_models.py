"""RELIABILITY E4, E6: model folders that bring code, pickles, tricky templates or an index that leads outside, through the real ways of loading a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_states import Hostile
from tiny_training import ROOT, make_model, write_dataset
from training import Job, Server

from advchain import chat
from advchain.datasets.contamination.embedding import Embedder
from advchain.errors import ConfigError, EngineError
from advchain.generate.transformers_engine import TransformersEngine
from advchain.judges.local import LocalOptions, load_weights
from advchain.models import check_weights, fetch
from advchain.specs import ModelSpec
from advchain.train import export

CODE = "import os\nos.mkdir({!r})\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M, PreTrainedTokenizerFast as T\n"
REMOTE = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForCausalLM": "evil.M"}
TRICKS = {
    "globals": "{{{{ cycler.__init__.__globals__.os.mkdir({folder!r}) }}}}",
    "subclasses": "{{% for c in ''.__class__.__mro__[1].__subclasses__() if c.__name__ == 'Popen' %}}{{{{ c(['mkdir', {folder!r}]) }}}}{{% endfor %}}",
    "format": "{{{{ '{{0.__class__.__init__.__globals__}}'.format(messages) }}}}",
    "mutation": "{{{{ messages.append(messages[0]) }}}}",
    "endless": "{{% for i in range(10**12) %}}x{{% endfor %}}",
    "include": "{{% include '/etc/passwd' %}}",
}


@pytest.fixture
def pwned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is only there once foreign code ran; whoever is asked whether to trust it says yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path / "pwned"


@pytest.fixture
def source(tmp_path: Path, pwned: Path) -> Path:
    """The tiny model, with code, a pickle and a template with tricks beside it."""
    folder = make_model(tmp_path / "source")
    (folder / "model.json").unlink()
    (folder / "evil.py").write_text(CODE.format(str(pwned)))
    (folder / "chat_template.jinja").write_text(TRICKS["globals"].format(folder=str(pwned)))
    torch.save({"model.norm.weight": Hostile(pwned)}, folder / "pytorch_model.bin")
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def fetched(source: Path, output: Path) -> Path:
    """The model folder that the rule makes of a folder of one's own."""
    fetch.fetch_model(output, ModelSpec(version=1, name="toy", origin=f"path:{source}", family="generic"))
    return output


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def index_outside(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "other.safetensors")
    change(folder / "model.safetensors.index.json", weight_map={"model.norm.weight": "../other.safetensors"})


ASKS_FOR_CODE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "auto_map": (lambda folder: change(folder / "config.json", auto_map=REMOTE), "auto_map"),
    "auto_map inside": (lambda folder: change(folder / "config.json", text_config={"auto_map": REMOTE}), "auto_map"),
    "attention from the hub": (lambda folder: change(folder / "config.json", attn_implementation="evil/kernel"), "attn_implementation"),
    "tokenizer": (lambda folder: change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.T"]}), "auto_map"),
}
REFUSED = ASKS_FOR_CODE | {"pickle": (only_pickled, "no safetensors weights"), "index outside": (index_outside, "names '../other.safetensors'")}


@pytest.mark.parametrize("name", REFUSED)
def test_e4_e6_a_model_that_brings_code_pickles_or_a_way_out_is_refused(source: Path, pwned: Path, tmp_path: Path, name: str) -> None:
    damage, words = REFUSED[name]
    damage(source)
    with pytest.raises(EngineError, match=words):
        fetched(source, tmp_path / "models/toy")
    assert not pwned.exists() and not list((tmp_path / "models").iterdir())


def test_e4_the_rules_script_tells_it_in_one_paragraph(source: Path, pwned: Path, tmp_path: Path) -> None:
    change(source / "config.json", auto_map=REMOTE)
    spec = ModelSpec(version=1, name="toy", origin=f"path:{source}", family="generic").model_dump_json()
    line = [sys.executable, ROOT / "scripts/model.py", "--out", tmp_path / "toy", "--spec", spec]
    done = subprocess.run(line, input="y\n", capture_output=True, text=True)
    assert done.returncode == 1 and "error: " in done.stderr and "never run" in done.stderr and "Traceback" not in done.stderr
    assert not pwned.exists() and not (tmp_path / "toy").exists()


def test_e4_what_lies_beside_a_model_is_left_there_and_its_template_does_nothing(source: Path, pwned: Path, server: Server, tmp_path: Path) -> None:
    """Fetched, answered with, trained and exported: neither code, nor pickle, nor template of the folder does anything or comes along."""
    base = fetched(source, tmp_path / "toy")
    assert not [path for path in base.rglob("*") if path.suffix in (".py", ".bin")] and check_weights(base)
    TransformersEngine(base, chat.family("generic"), "fp32", 1000).close()
    job = Job(write_dataset(tmp_path / "rows.jsonl", 3), base, tmp_path / "job", changes=(("epochs", 1), ("batch_size", 3)))
    server.run(job)
    assert (job.out / "chat_template.jinja").read_text() == export.family_template(chat.family("generic"))
    assert not pwned.exists()


@pytest.mark.parametrize("name", TRICKS)
def test_e4_a_template_with_tricks_is_rendered_in_a_sandbox(source: Path, pwned: Path, tmp_path: Path, name: str) -> None:
    (source / "chat_template.jinja").write_text(TRICKS[name].format(folder=str(pwned)))
    rendered = export.rendered_prompt(fetched(source, tmp_path / "toy"))
    assert rendered is not None and rendered.startswith("the error '") and not pwned.exists()


@pytest.mark.parametrize("name", ["auto_map", "attention from the hub", "tokenizer", "pickle"])
@pytest.mark.parametrize("load", ["judge", "embedding"])
def test_e4_judges_and_embeddings_run_no_code_either(source: Path, pwned: Path, load: str, name: str) -> None:
    """They are loaded from where the user has them; what asks for code is refused, or loaded without it."""
    REFUSED[name][0](source)
    try:
        load_weights("j", LocalOptions(model="m", path=str(source))) if load == "judge" else Embedder(source)
    except (ConfigError, EngineError) as error:
        assert str(source) in str(error)
    else:
        assert load == "judge" and name != "pickle", "transformers' own class is taken instead"
    assert not pwned.exists()


def test_e4_a_pickled_adapter_of_a_judge_runs_nothing(tmp_path: Path, pwned: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from tiny_training import tiny_model

    from advchain.judges.local import merge_adapter

    adapter = tmp_path / "adapter"
    get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weight": Hostile(pwned)}, adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match="pickled and hold more than numbers"):
        merge_adapter("j", tiny_model(), str(adapter))
    assert not pwned.exists()


def test_e4_a_file_that_only_calls_itself_safetensors_is_refused(source: Path, pwned: Path, tmp_path: Path) -> None:
    os.replace(source / "pytorch_model.bin", source / "model.safetensors")
    with pytest.raises(EngineError, match="no safetensors file"):
        fetched(source, tmp_path / "toy")
    assert not pwned.exists()
