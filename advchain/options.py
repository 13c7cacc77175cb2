"""Options of judges and attacks, so that a misspelt one is told when the config is read and not when its job starts.

The class with the options is read from the file with `ast` and built again, its fields only: planning a run imports no stage. Validators that are more than a
field's type and bounds run in the job.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from advchain.catalogue import PACKAGE
from advchain.errors import ConfigError, did_you_mean

O = TypeVar("O", bound=BaseModel)  # noqa: E741
KNOWN: dict[str, Any] = {"Any": Any, "Literal": Literal, "Field": Field, "bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}


class _Declared(BaseModel):
    """Base of every class of options that is read here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def check_options(kind: type[O], given: Mapping[str, Any], where: str) -> O:
    """Read options into their class.

    Raises:
        ConfigError: an unknown option or a bad value; names place, option, value and what is known.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = f" {did_you_mean(name, kind.model_fields)}" if first["type"] == "extra_forbidden" else f" Got {first['input']!r}."
        raise ConfigError(f"{where}.{name}: {first['msg']}.{known}") from error


@cache
def declared(folder: str, name: str) -> type[BaseModel] | None:
    """Return the options of advchain/<folder>/<name>.py: `OPTIONS = Class` of a judge, the first argument of `ATTACK = Attack(Class, ...)`; None where a file
    says neither.
    """
    path = PACKAGE / folder / f"{name}.py"
    for node in _tree(path).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign) and target.id in ("OPTIONS", "ATTACK"):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            return _class(path, value.id) if isinstance(value, ast.Name) else None
    return None


def has_other_options(folder: str, name: str, given: Mapping[str, Any]) -> bool:
    """Return whether options change anything of a file that states its options."""
    kind = declared(folder, name)
    return bool(given) if kind is None else kind.model_validate(given) != kind.model_validate({})


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _find(path: Path, name: str) -> tuple[Path, ast.ClassDef]:
    """Return where a class is defined, following imports from this package."""
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return _find(PACKAGE.parent.joinpath(*str(node.module).split(".")).with_suffix(".py"), name)
    raise ConfigError(f"{path}: its options are of class {name}, which is neither defined nor imported there by name.")


def _class(path: Path, name: str) -> type[BaseModel]:
    """Build a class again: its annotated fields, and its first base's."""
    path, node = _find(path, name)
    base = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else "BaseModel"
    names = _constants(path)
    fields: dict[str, Any] = {
        part.target.id: (_value(part.annotation, names), ... if part.value is None else _value(part.value, names))
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    return create_model(name, __base__=_Declared if base == "BaseModel" else _class(path, base), **fields)


def _constants(path: Path) -> dict[str, Any]:
    """What annotations and defaults of a file may name: types, and the file's own literals."""
    found = dict(KNOWN)
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = _value(node.value, found)
            except (NameError, AttributeError, TypeError):
                continue  # made of what only the stage knows
    return found


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<options>", "eval"), {"__builtins__": {}}, names)
