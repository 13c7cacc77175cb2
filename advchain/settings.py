"""Strict sections of settings, and how what is wrong with one is told: one paragraph with place, value, what is allowed, and the nearest known name."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from advchain.errors import did_you_mean

CONFIG_FILES = "config"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class Section(BaseModel):
    """Strict and immutable; unknown keys are errors with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _a_yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads on, off, yes and no as true and false: a word again where `on` and `off` are choices, an error where a number is expected."""
        if not isinstance(value, bool):
            return value
        kinds = _parts(cls.model_fields[str(info.field_name)].annotation)
        if {"on", "off"} <= kinds:
            return "on" if value else "off"
        if kinds & {int, float} and bool not in kinds:
            raise ValueError("a number is expected, and YAML reads on, off, yes, no, true and false as a truth value")
        return value


def names(value: dict[str, Any]) -> dict[str, Any]:
    """Check the keys of a section that become names of files and words of commands: no path, no blank, nothing a shell reads."""
    for name in value:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"{json.dumps(name)} is not a name: use letters, digits, '.', '_' and '-', a letter or digit first")
    return value


def _parts(kind: Any) -> set[Any]:
    """Types and choices that a field's annotation is made of."""
    if typing.get_origin(kind) is Literal:
        return set(typing.get_args(kind))
    found = [_parts(part) for part in typing.get_args(kind)]
    return set().union(*found) if found else {kind}


def paragraph(error: ValidationError, where: str | Callable[[tuple[int | str, ...]], str], kind: type[BaseModel]) -> str:
    """Turn pydantic's report into one paragraph: place (`where` may look it up), value, what is allowed."""
    problems = error.errors()
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in first["loc"])
    where = where if isinstance(where, str) else where(first["loc"])
    more = f" ({len(problems) - 1} more problems follow once this is mended.)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind, first["loc"][:-1])
        return f"{where}: {place}: unknown key '{first['loc'][-1]}'; {did_you_mean(str(first['loc'][-1]), known)}{more}"
    if first["type"] == "missing":
        return f"{where}: {place}: this setting is required.{more}"
    shown = json.dumps(first["input"], ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{where}: {place}: {first['msg']}; the value given is {shown}.{more}"


def _known_keys(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Field names (aliases where there are any) of the section at `location`."""
    for part in location:
        kind = _section_of(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = next((f for name, f in kind.model_fields.items() if part in (name, f.alias)), None)
            kind = field.annotation if field else None
        elif typing.get_origin(kind) in (dict, list):
            kind = typing.get_args(kind)[-1]
    kind = _section_of(kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


def _section_of(kind: Any) -> Any:
    """`Section | None` -> `Section`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next((arg for arg in typing.get_args(kind) if arg is not type(None)), kind)
    return kind
