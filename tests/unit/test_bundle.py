"""`bundle`: the same bytes for the same run, nothing harmful or heavy unless asked, and a check that finds every change."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from pathlib import Path

import pytest
from small_results import TINY, tiny_plan

from advchain.errors import AdvChainError, DataError, StorageError
from advchain.operations.bundle import check_bundle, secrets_of, write_bundle
from advchain.operations.provenance import provenance


@pytest.fixture
def results(finished_small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_small, tmp_path / "results"))


@pytest.fixture(scope="session")
def about(finished_small: Path) -> dict[str, bytes]:
    return provenance(tiny_plan(), finished_small, [TINY])


def members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_two_bundles_of_one_run_are_the_same_bytes(results: Path, finished_small: Path, about: dict[str, bytes], tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a.tar.gz", finished_small, about)
    second = write_bundle(tmp_path / "b.tar.gz", results, provenance(tiny_plan(), results, [TINY]))
    assert first.sha256 == second.sha256
    checked = check_bundle(tmp_path / "a.tar.gz")
    assert (checked.sha256, checked.num_files) == (first.sha256, first.num_files)
    assert (tmp_path / "a.tar.gz.sha256").read_text() == f"{first.sha256}  a.tar.gz\n"


def test_what_is_in_it(finished_small: Path, about: dict[str, bytes], tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.tar.gz", finished_small, about)
    found = members(tmp_path / "a.tar.gz")
    expected = {"MANIFEST.json", "PROVENANCE.md", "config/resolved.yaml", "config/given/tiny.yaml", "config/models.yaml", "envs/control.txt"}
    expected |= {"results/report.html", "results/scores.csv", "results/tables/safety.csv", "results/datasets/advchain.card.md"}
    expected |= {f"results/checkpoints/smollm2-135m/advchain/seed2002/{name}" for name in ("model.json", "training.jsonl")}
    expected |= {"results/verdicts/smollm2-135m/base/released/xstest.manifest.json"}
    assert expected <= set(found)
    texts = [name for name in found if name.startswith("results/") and name.endswith(".jsonl") and not name.endswith("training.jsonl")]
    assert texts == [] and not any(name.endswith((".safetensors", ".js", ".store", ".log")) for name in found)


def test_text_comes_along_only_when_asked_and_weights_never(finished_small: Path, about: dict[str, bytes], tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.tar.gz", finished_small, about, with_text=True)
    found = members(tmp_path / "a.tar.gz")
    assert "results/responses/smollm2-135m/base/released/xstest.jsonl" in found and "results/explorer/index.html" in found
    assert not any(name.endswith(".safetensors") for name in found)


def test_an_unfinished_run_a_link_outside_and_a_key_are_refused(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.tar.gz"
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret-key-canary")
    (results / "tables/link.csv").symlink_to(secret)
    with pytest.raises(DataError, match="link that leads out"):
        write_bundle(target, results, {})
    (results / "tables/link.csv").unlink()
    (results / "summary.md").write_text("the key is s3cret-key-canary")
    with pytest.raises(DataError, match=r"summary.md holds the value of OPENAI_API_KEY") as error:
        write_bundle(target, results, {}, secrets=secrets_of({"OPENAI_API_KEY": "s3cret-key-canary", "HOME": "/root"}))
    assert "s3cret" not in str(error.value)
    (results / "report.html").unlink()
    with pytest.raises(DataError, match="not finished"):
        write_bundle(target, results, {})
    assert not target.exists()


def test_every_flipped_byte_of_a_bundle_is_found(finished_small: Path, about: dict[str, bytes], tmp_path: Path) -> None:
    path, draw = tmp_path / "a.tar.gz", random.Random(0)
    write_bundle(path, finished_small, about)
    whole = path.read_bytes()
    for _ in range(60):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(AdvChainError):
            check_bundle(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError):
        check_bundle(path)


def packed(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize("info", [tarfile.TarInfo("../evil"), tarfile.TarInfo("/evil"), tarfile.TarInfo("results/../../evil"), link("results/x")])
def test_names_that_lead_out_and_links_are_refused(tmp_path: Path, info: tarfile.TarInfo) -> None:
    with pytest.raises(DataError, match="leads out of the bundle or is no plain file"):
        check_bundle(packed(tmp_path / "a.tar.gz", (info, b"")))


def test_what_is_no_bundle_and_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no MANIFEST.json"):
        check_bundle(packed(tmp_path / "a.tar.gz", (tarfile.TarInfo("x"), b"1")))
    with pytest.raises(DataError, match="x is not listed"):
        check_bundle(packed(tmp_path / "b.tar.gz", (tarfile.TarInfo("MANIFEST.json"), b'{"files": {}}'), (tarfile.TarInfo("x"), b"1")))
    (tmp_path / "c.tar.gz").write_text("no archive")
    with pytest.raises(StorageError, match="cannot be read"):
        check_bundle(tmp_path / "c.tar.gz")
