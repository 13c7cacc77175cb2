"""Where a teacher is: the part of the address that its answers depend on, and its key."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from advchain.errors import AccessError, ConfigError
from advchain.io import sha256_text
from advchain.llm import embedded
from advchain.specs import ServeSpec, Spec, TeacherSpec

EMBEDDED = "embedded"
SERVED = "served"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # names to recognise, nothing is bound here


def endpoint_family(teacher: TeacherSpec) -> str:
    """Return the part of the endpoint that an answer depends on.

    "embedded" with its version, "served" with which weights, "local" for a loopback server (whose port is another one in every job), else the host.

    Raises:
        ConfigError: `base_url` is no http(s) URL, or carries credentials.
    """
    if teacher.base_url == EMBEDDED:
        return f"{EMBEDDED}-{embedded.VERSION}"
    if teacher.serve is not None:
        return f"{SERVED}-{sha256_text(teacher.serve.weights)[:12]}"
    url = urlsplit(teacher.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"teacher '{teacher.name}': base_url must be 'embedded', 'served' or start with http:// or https://.")
    if url.username or url.password or url.query:
        raise ConfigError(f"teacher '{teacher.name}': base_url must not carry a user, password or query; name the key's environment variable in api_key_env.")
    return "local" if url.hostname in LOOPBACK else url.hostname


def read_key(teacher: TeacherSpec) -> str | None:
    """Return the API key from the environment variable that the teacher names; None when it names none.

    Raises:
        AccessError: the variable is not set.
        ConfigError: a budget without prices.
    """
    if teacher.budget_usd is not None and teacher.base_url != EMBEDDED and not (teacher.usd_per_million_input or teacher.usd_per_million_output):
        raise ConfigError(f"teacher '{teacher.name}': budget_usd needs prices. Set usd_per_million_input and usd_per_million_output, or drop budget_usd.")
    if not teacher.api_key_env:
        return None
    key = os.environ.get(teacher.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        state = "holds characters that no key has" if key else "is not set"
        raise AccessError(f"teacher '{teacher.name}': environment variable {teacher.api_key_env} {state}. Put the API key there, or choose another teacher.")
    return key


def served_in(value: Any) -> list[tuple[str, ServeSpec]]:
    """Return (model, how it is served) of each served teacher anywhere in a spec."""
    if isinstance(value, TeacherSpec):
        return [(value.model, value.serve)] if value.serve else []
    if isinstance(value, Spec):
        return [found for _, part in value for found in served_in(part)]
    return [found for part in value for found in served_in(part)] if isinstance(value, tuple) else []
