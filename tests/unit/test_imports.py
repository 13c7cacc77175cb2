"""The import graph goes one way, and planning a run stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "advchain"

LAYERS = [
    {"errors", "records", "steps", "versions", "_version"},
    {"environments", "io", "manifests", "chat", "stats", "paths", "ports", "store", "cli", "parallel", "preflight", "progress", "rows"},
    {
        "specs",
        "report_specs",
        "catalogue",
        "options",
        "config",
        "entries",
        "grid",
        "plan",
        "evaluation_plan",
        "settings",
        "plan_checks",
        "reruns",
        "deviations",
        "estimate",
        "llm",
        "files",
        "models",
    },
    {"sources", "chains", "datasets", "train", "generate", "benchmarks", "attacks", "judges"},
    {"report"},
    {"explorer"},
    {"operations"},
]
SHARED_BETWEEN_STAGES = {("chains", "judges"), ("report", "judges")}  # the phrase and cue lists of two lexical judges, without their stage
HEAVY = {"torch", "transformers", "deepspeed", "vllm", "datasets", "openai", "aiohttp", "polars", "matplotlib", "altair", "snakemake"}


def imported(path: Path) -> set[str]:
    """Top-level parts of advchain that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "advchain":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("advchain.")}
    return found


def layer_of(part: str) -> int:
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"advchain.{part} has no layer: place it in LAYERS")


def test_imports_go_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__" or own == "sample":
            continue
        for other in imported(path) - {own}:
            stage = layer_of(own) == layer_of(other) == 3
            if layer_of(other) > layer_of(own) or (stage and (own, other) not in SHARED_BETWEEN_STAGES):
                wrong.append(f"{path.relative_to(ROOT)} imports advchain.{other}")
    assert not wrong, wrong


def test_only_rules_know_snakemake() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        names = {alias.name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module).split(".")[0] for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert "snakemake" not in names, path


def test_planning_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom advchain.config import load_config\nfrom advchain.plan import Plan\n"
        f"Plan(load_config([Path({str(ROOT / 'config/paper.yaml')!r})])).report_spec()\nprint(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()
    assert not HEAVY & set(loaded)
