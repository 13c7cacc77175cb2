"""What can be named in a config: modules found by their folder's listing, and the YAML catalogues under config/.

Modules are read with `ast`, not imported, so that planning a run stays light. YAML is read strictly: a duplicate key or a tab
is an error with its line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from advchain.errors import ConfigError, did_you_mean

PACKAGE = Path(__file__).parent
CONFIG = PACKAGE.parent / "config"
MERGE = "tag:yaml.org,2002:merge"
FRAME_FILES = {"__init__", "read", "run", "sandbox", "build", "mix"}  # files of a folder that are not entries of its catalogue


@dataclass(frozen=True)
class Module:
    """The literal constants of a benchmark, attack, judge or source file, by name, and its docstring's first line."""

    name: str
    title: str
    version: int
    constants: dict[str, Any] = field(default_factory=dict)


@cache
def modules(folder: str) -> dict[str, Module]:
    """List the entries of advchain/<folder>: every file with a literal VERSION."""
    found = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.stem in FRAME_FILES or path.stem.startswith("_"):
            continue
        constants, doc = _literals(path)
        if isinstance(constants.get("VERSION"), int):
            found[path.stem] = Module(path.stem, doc.split("\n")[0].rstrip("."), constants["VERSION"], constants)
    return found


def module(folder: str, name: str, where: str) -> Module:
    """Return one entry.

    Raises:
        ConfigError: no such file; lists what exists.
    """
    known = modules(folder)
    if name not in known:
        raise ConfigError(f"{where}: no file {name}.py in advchain/{folder}; {did_you_mean(name, known)}")
    return known[name]


def _literals(path: Path) -> tuple[dict[str, Any], str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants: dict[str, Any] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id.isupper() and value is not None:
            try:
                constants[target.id] = ast.literal_eval(value)
            except ValueError:
                continue  # not a literal (a Pin, a regex): not part of the catalogue
    return constants, ast.get_docstring(tree) or path.stem


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads 1e-4 as the number it is."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE:
            continue  # `<<: *anchor`; flatten_mapping puts the anchor's entries in front of these
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(f"{node.start_mark.name}, line {key_node.start_mark.line + 1}: '{key}' is given twice (first in line {seen[key]}). Keep one.")
        seen[key] = key_node.start_mark.line + 1
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping strictly.

    Raises:
        ConfigError: not readable, not YAML, a duplicate key, or not a mapping; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
    loader = _StrictLoader(text)
    loader.name = str(path)
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}, line {line}: {error.problem or error}. Mend the YAML there (indent with spaces).") from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a mapping of settings is expected, found {'an empty file' if value is None else type(value).__name__}.")
    return value


def line_of(path: Path, keys: Sequence[int | str]) -> int | None:
    """Return the line (from 1) of a setting in a YAML file, or None where the file does not have it."""
    node, line = yaml.compose(path.read_text(encoding="utf-8"), Loader=_StrictLoader), None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(key)), None)
            line, node = (found[0].start_mark.line + 1, found[1]) if found else (None, None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            return line  # deeper than the file is: a union's branch, or what stands there is no mapping
        if node is None:
            return None
    return line


@cache
def catalogue(name: str) -> dict[str, dict[str, Any]]:
    """Return one YAML catalogue of config/: models, methods, recipes, teachers, judges."""
    return read_yaml(CONFIG / f"{name}.yaml")


def entry(name: str, key: str, where: str) -> dict[str, Any]:
    """Return one entry of a catalogue.

    Raises:
        ConfigError: unknown name; lists what exists.
    """
    known = catalogue(name)
    if key not in known:
        raise ConfigError(f"{where}: unknown name '{key}' in config/{name}.yaml; {did_you_mean(key, known)}")
    return known[key]
