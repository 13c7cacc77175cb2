"""One file per judge kind: a file with VERSION, MEASURES, a title (first docstring line) and `build(spec, work)`.

Adding a judge is adding a file; the folder's listing is the registry. Importing a judge file loads nothing heavy.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from advchain.errors import ConfigError, did_you_mean


def kinds() -> list[str]:
    """Return the judge kinds: the files of this folder that state what they measure."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\nMEASURES" in path.read_text(encoding="utf-8"))


def load(kind: str) -> ModuleType:
    """Return the module of a judge kind.

    Raises:
        ConfigError: no such file.
    """
    if kind not in kinds():
        raise ConfigError(f"judge kind '{kind}': no file advchain/judges/{kind}.py; {did_you_mean(kind, kinds())}")
    return importlib.import_module(f"advchain.judges.{kind}")
