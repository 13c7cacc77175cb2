"""What a bundle says of how it was made: config, pins, and a page in words."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from advchain import __version__, versions
from advchain.catalogue import CONFIG, PACKAGE
from advchain.deviations import deviations
from advchain.operations.artefacts import NOT_RESULTS, Artefact, is_manifest, read_artefact, walk
from advchain.plan import Plan

ROOT = PACKAGE.parent


def provenance(plan: Plan, results: Path, files: Iterable[Path]) -> dict[str, bytes]:
    """Return member name -> content: PROVENANCE.md, the resolved config, the catalogues it draws on, and the pins.

    Args:
        plan: of the config that the run was made with.
        results: the finished folder.
        files: the config files as given.
    """
    artefacts = [read_artefact(path) for path in walk(results, NOT_RESULTS) if is_manifest(path, results)]
    resolved = yaml.safe_dump(json.loads(plan.config.model_dump_json(by_alias=True)), sort_keys=False, allow_unicode=True)
    members = {"PROVENANCE.md": "\n".join(_page(plan, artefacts)) + "\n", "config/resolved.yaml": resolved}
    members |= {f"config/given/{path.name}": path.read_text(encoding="utf-8") for path in files}
    members |= {f"config/{path.name}": path.read_text(encoding="utf-8") for path in sorted(CONFIG.glob("*.yaml")) if path.stem in CATALOGUES}
    members |= {f"envs/{path.name}": path.read_text(encoding="utf-8") for path in sorted((ROOT / "envs").glob("*.txt"))}
    return {name: text.encode("utf-8") for name, text in members.items()}


CATALOGUES = {"models", "methods", "recipes", "teachers", "judges", "hardware", "paper_numbers"}


def _page(plan: Plan, artefacts: list[Artefact]) -> Iterator[str]:
    """No times and no machine: the same run gives the same page."""
    yield f"# Provenance of `{plan.config.name}`\n"
    yield f"AdvChain {__version__}{_commit()}. {len(plan.checkpoints)} checkpoints, {len(plan.evaluations)} evaluations, planned for {plan.hardware.title}.\n"
    codes = Counter(artefact.code for artefact in artefacts if artefact.code)
    yield f"Code of the package (hash without comments): {', '.join(f'`{code}` ({num} files)' for code, num in sorted(codes.items()))}.\n"
    yield "## Versions of the stages\n"
    yield ", ".join(f"{name.lower()} {value}" for name, value in vars(versions).items() if name.isupper()) + ".\n"
    yield "## Packages\n"
    yield from (f"- {text}" for text in sorted({_packages(artefact.manifest) for artefact in artefacts} - {""}))
    yield "\n## Where this config departs from the paper\n"
    yield from ([f"- {text}" for text in deviations(plan)] or ["Nowhere that is known."])
    yield "\n## Files\n"
    yield "Weights are not in this bundle; `model.json` of each checkpoint has their sha256. Every manifest names the hashes of what it was made from."


def _commit() -> str:
    """The commit, where the sources are a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _packages(manifest: Path) -> str:
    value = json.loads(manifest.read_bytes())
    found = value.get("manifest", value).get("versions", {})
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
