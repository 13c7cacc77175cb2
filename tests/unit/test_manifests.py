"""What a manifest says of the code that made a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from advchain.manifests import code_hash, hash_sources


def package(folder: Path, text: str) -> Path:
    (folder / "deeper").mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text("")
    (folder / "deeper/one.py").write_text(text)
    return folder


def test_a_comment_changes_nothing_and_a_number_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = hash_sources(package(tmp_path, "x = 1\n"))
    assert hash_sources(package(tmp_path, "# why\n\nx = 1\n")) == first
    assert hash_sources(package(tmp_path, "x = 2\n")) != first
    assert hash_sources(package(tmp_path, "x = 1\n")) == first


@pytest.mark.parametrize("left", ["", "torn", "\0" * 40, "a b c", "0123 f00d"])
def test_what_was_kept_counts_only_for_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    found = hash_sources(package(tmp_path, "x = 1\n"))
    (kept,) = (tmp_path / "__pycache__").iterdir()
    assert kept.read_text().split()[1] == found
    kept.write_text(left)
    assert hash_sources(tmp_path) == found
    assert kept.read_text().split()[1] == found
    kept.write_text(kept.read_text().replace(found, "kept"))
    assert hash_sources(tmp_path) == "kept"  # it is read at all


def test_nothing_is_kept_where_python_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = hash_sources(package(tmp_path, "x = 1\n"))
    assert not (tmp_path / "__pycache__").exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "__pycache__").write_text("a file in the way: cannot be written to")
    assert hash_sources(tmp_path) == found


def test_the_package_itself_has_one() -> None:
    assert len(code_hash()) == 16
