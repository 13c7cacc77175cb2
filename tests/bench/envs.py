"""Every pinned environment from empty: `python tests/bench/envs.py [--roles control train generate-cpu]`, last line one JSON object.

Each role gets a new virtual environment in a temporary folder, is installed as the Makefile and envs/Containerfile do it, imports what its stages
need (the generate role: vLLM itself), and is removed again. Needs the package index, about 10 GB of free disk and, for all three, ten minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = "Complete, so installed without resolving"  # what the head of such a pin file says

# What each role's stages import; the last one is what the role is for.
IMPORTS = {
    "control": ["advchain.plan", "advchain.chains.build", "advchain.report.build", "advchain.judges.run", "polars", "snakemake"],
    "train": ["advchain.train.sft", "torch", "transformers", "peft", "deepspeed"],
    "generate-cpu": ["advchain.generate.run", "torch", "transformers", "vllm"],
    "laptop": ["advchain.report.build", "advchain.train.sft", "deepspeed", "pytest", "snakemake"],
}


def install(python: Path, role: str) -> None:
    """torch first and by exact version, then everything; a pin file that says so is taken as it is, without resolving."""
    pins = ROOT / "envs" / f"{role}.txt"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = [line for line in pins.read_text().splitlines() if line.startswith("torch==")]
    if torch:
        subprocess.run([*pip, *torch], check=True)
    alone = ["--no-deps"] if COMPLETE in pins.read_text() else []
    subprocess.run([*pip, *alone, "-r", str(pins)], check=True)


def differing(python: Path, role: str) -> list[str]:
    """Pins that are not what was installed; a build of one's own (1.0+cpu) is the version it names."""
    listed = subprocess.run([str(python), "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True).stdout
    have = {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed)}
    pins = [line.split("==") for line in (ROOT / "envs" / f"{role}.txt").read_text().splitlines() if "==" in line and not line.startswith("#")]
    found = [(name, version, have.get(name.lower().replace("_", "-").replace(".", "-")) or have.get(name.lower().replace("_", "-"))) for name, version in pins]
    return [f"{name}: {version} pinned, {got}" for name, version, got in found if got is None or got.split("+")[0] != version.split("+")[0]]


def measure(role: str, folder: Path) -> dict[str, object]:
    """Install, import, and tell seconds and size; the folder is removed whatever happens."""
    started = time.monotonic()
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin/python"
        install(python, role)
        installed = time.monotonic()
        code = "import importlib\nfor name in " + repr(IMPORTS[role]) + ":\n    importlib.import_module(name)"
        ran = subprocess.run([str(python), "-c", code], cwd=ROOT, env={"PATH": f"{folder}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)})
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {
            "imports": ran.returncode == 0,
            "install_seconds": round(installed - started),
            "import_seconds": round(time.monotonic() - installed),
            "gb": round(size / 1e9, 2),
            "differing": differing(python, role),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roles", nargs="+", default=["control", "train", "generate-cpu"], choices=sorted(IMPORTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="advchain-envs-") as name:
        found = {role: measure(role, Path(name) / role) for role in arguments.roles}
    for role, row in found.items():
        print(f"{role:<14}{row}")
    print(json.dumps(found))
    sys.exit(0 if all(row["imports"] and not row["differing"] for row in found.values()) else 1)


if __name__ == "__main__":
    main()
