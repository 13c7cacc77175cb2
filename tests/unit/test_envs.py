"""The pin files under envs/: exact pins from an index, nothing of the machine they were made on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ENVS = Path(__file__).resolve().parents[2] / "envs"
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
