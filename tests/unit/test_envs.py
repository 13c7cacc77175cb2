"""The pin files under envs/: exact pins from an index, nothing of the machine they were made on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).resolve().parents[2] / "envs"
sys.path.append(str(ENVS.parent / "scripts"))

from conda_envs import ROLES, conda_env  # noqa: E402

PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*")


def pins(name: str) -> list[str]:
    lines = (ENVS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", sorted(path.name for path in ENVS.glob("*.txt")))
def test_pins_are_exact_and_from_an_index(name: str) -> None:
    assert [line for line in pins(name) if not PIN.fullmatch(line)] == []
    names = [line.split("==")[0].lower().replace("_", "-") for line in pins(name)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["control.txt", "train.txt"])
def test_roles_agree_with_the_laptop(name: str) -> None:
    assert set(pins(name)) <= set(pins("laptop.txt"))


def test_generate_on_a_cpu_leaves_out_what_does_not_load() -> None:
    """torchvision and its kin on the index are built for the CUDA torch; transformers imports them where it finds them, and vLLM then fails."""
    assert {name.split("==")[0] for name in pins("generate-cpu.txt")}.isdisjoint({"torchvision", "torchaudio", "torchcodec"})


@pytest.mark.parametrize("role", ["control", "train", "generate"])
def test_conda_files_hold_the_same_pins(role: str) -> None:
    """One by one: Snakemake copies the file to a folder of its own, where `-r control.txt` would name nothing."""
    path = ENVS / f"{role}.yaml"
    assert path.read_text(encoding="utf-8") == conda_env(role), "run `make envs`"
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    assert dependencies[:2] == ["python=3.11", "pip=25.3"]
    assert dependencies[2]["pip"] == pins(f"{ROLES[role]}.txt")


def test_every_rule_has_an_environment_that_is_there() -> None:
    named = {name for path in (ENVS.parent / "rules").glob("*.smk") for name in re.findall(r'"\.\./envs/(.+?)"', path.read_text(encoding="utf-8"))}
    assert named and all((ENVS / name).is_file() for name in named)


def test_the_train_role_holds_the_control_role() -> None:
    """The container's main environment is the train role's: what a rule needs from control has to be in it."""
    assert set(pins("control.txt")) <= set(pins("train.txt"))


def test_the_container_is_built_from_the_pins() -> None:
    text = (ENVS / "Containerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY envs/(\S+)", text, re.MULTILINE)
    assert copied == ["train.txt", "${GENERATE}.txt"] and (ENVS / "generate-gpu.txt").is_file()
    assert not re.findall(r"pip install (?!-r|\"\$\(grep|\$\{alone)", text), "nothing is installed but pins"
    kept_out = (ENVS / "Containerfile.dockerignore").read_text(encoding="utf-8").split()
    assert {".git", "results", ".venv*"} <= set(kept_out)
