"""Errors a user can act on: one clean paragraph, printed without a traceback by the scripts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdvChainError(Exception):
    """Base of every error that the user (not the code) can mend."""


class ConfigError(AdvChainError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(AdvChainError, ValueError):
    """A file or row does not have the promised shape."""


class AccessError(AdvChainError, OSError):
    """Something outside could not be reached: a hub, an endpoint, a gated repository, a missing key."""


class StorageError(AdvChainError, OSError):
    """A file could not be written or read back whole."""


class BudgetError(AdvChainError, RuntimeError):
    """The configured budget would be exceeded by the next call."""


class SandboxError(AdvChainError, RuntimeError):
    """No sandbox that blocks the canary can be had; model-written code is not run."""


class EngineError(AdvChainError, RuntimeError):
    """A model engine could not start, died, or gave fewer rows than asked."""


class BusyError(AdvChainError, RuntimeError):
    """Another run, or jobs that an earlier one left, are at work in this folder."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "known: a, b. Did you mean 'a'?" for an unknown `name`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"known: {', '.join(names) or 'none'}.{hint}"
