#!/usr/bin/env python3
"""Answer the prompts of several evaluations with one checkpoint and one engine load; finished rows go into a store."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from pathlib import Path

from advchain import cli
from advchain.environments import generate_python
from advchain.errors import ConfigError
from advchain.specs import GenerateSpec


def enter_vllm_environment(engine: str) -> None:
    """Become the same script under the generate role's Python, where vLLM is, if there is one."""
    if engine == "transformers" or importlib.util.find_spec("vllm") is not None:
        return
    python = generate_python()
    if python is not None and python != Path(sys.executable):
        logging.getLogger(__name__).info("generate: vLLM environment %s", python)
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--prompts: '{text}' is not name=path.")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="model folder with model.json")
    parser.add_argument("--prompts", nargs="+", required=True, metavar="NAME=PATH", help="evaluation and its items (JSONL)")
    parser.add_argument("--store", type=Path, required=True, help="store of finished answers, kept between runs")
    parser.add_argument("--marker", type=Path, required=True, help="manifest to write when nothing is missing")
    parser.add_argument("--spec", required=True, help="GenerateSpec as JSON")
    arguments = parser.parse_args()
    spec = cli.parse_spec(GenerateSpec, arguments.spec)
    enter_vllm_environment(spec.engine)

    from advchain.generate.run import generate

    generate(arguments.checkpoint, dict(named(text) for text in arguments.prompts), arguments.store, arguments.marker, spec)


if __name__ == "__main__":
    cli.run(main)
