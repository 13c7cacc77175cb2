"""Atomic writing, strict reading, manifests; the append-only store survives kills and finds damage."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advchain.errors import DataError, StorageError
from advchain.io import atomic_write, new_folder, read_jsonl, read_records, sha256_file, write_json, write_jsonl
from advchain.manifests import Rejects, write_stage
from advchain.records import Chain
from advchain.store import Store, make_key

CHAIN = Chain(id="a", source="s", nature="harmful", prompt="p", steps=("one", "two"), answer="x\u2028y")


def test_rows_survive_a_round_trip_with_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert write_jsonl(path, [CHAIN, CHAIN]) == 2
    assert read_records(path, Chain) == [CHAIN, CHAIN]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": "a"}\n{"id": \xff}\n', "line 2: not UTF-8 (byte 7"),
        (b'{"id": "a"\n', "line 1: not JSON"),
        (b"[1]\n", "a list where a JSON object"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_jsonl(path))
    assert says in str(caught.value)


def test_bom_is_read_and_wrong_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = CHAIN.model_dump(mode="json")
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\n")
    assert read_records(path, Chain) == [CHAIN]
    for change, column in (({"prompt": None}, "prompt"), ({"extra": 1}, "extra")):
        path.write_text(json.dumps(row | change) + "\n")
        with pytest.raises(DataError, match=f"line 1, column '{column}'"):
            read_records(path, Chain)


def test_stage_files_carry_hash_counts_and_rejects(tmp_path: Path) -> None:
    rejects = Rejects()
    rejects.add("b", "too_long")
    out = tmp_path / "s.jsonl"
    write_stage(out, [CHAIN], stage="demo", spec={"version": 1}, rejects=rejects)
    manifest = json.loads((tmp_path / "s.manifest.json").read_text())
    assert manifest["output"] == {"path": "s.jsonl", "sha256": sha256_file(out), "rows": 1}
    assert manifest["rejects"] == {"total": 1, "reasons": {"too_long": 1}}
    assert json.loads((tmp_path / "s.rejects.jsonl").read_text())["reason"] == "too_long"


def test_too_many_rejects_fail_and_leave_no_rows(tmp_path: Path) -> None:
    rejects = Rejects()
    rejects.add("b", "too_long")
    out = tmp_path / "s.jsonl"
    with pytest.raises(DataError, match="1 of 2 rows were rejected"):
        write_stage(out, [CHAIN], stage="demo", spec={}, rejects=rejects, max_reject_share=0.2)
    assert not out.exists()
    assert (tmp_path / "s.failed.jsonl").exists() and not (tmp_path / "s.rejects.jsonl").exists()


def test_full_disk_is_one_paragraph_and_changes_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        disk = Path("/dev")  # not root: /dev/full below stands for a full disk
    try:
        target = disk / "x.jsonl" if disk != Path("/dev") else Path("/dev/full/x")
        with pytest.raises(StorageError, match="cannot write"):
            write_jsonl(target, ({"text": "x" * 1000} for _ in range(1000)))
        if disk != Path("/dev"):
            assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], capture_output=True)


def test_store_keeps_first_value_and_finds_it_again(tmp_path: Path) -> None:
    with Store(tmp_path / "s.store") as store:
        store.put("k", {"text": "one"})
        store.put("k", {"text": "two"})
    with Store(tmp_path / "s.store") as store:
        assert store.get("k") == {"text": "one"}
        assert len(store) == 1


def test_store_drops_a_torn_tail_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    with Store(path) as store:
        store.put("a", 1)
        whole = path.read_bytes()
        store.put("b", [2, 3])
    data = path.read_bytes()
    for cut in range(len(whole), len(data)):
        path.write_bytes(data[:cut])
        with Store(path) as store:
            assert store.get("a") == 1
            assert store.get("b") is None
            store.put("b", [2, 3])
        assert path.read_bytes() == data


def test_store_refuses_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "s.store"
    with Store(path) as store:
        store.put("a", 1)
        store.put("b", 2)
    data = bytearray(path.read_bytes())
    data[15] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="line 1: checksum mismatch"):
        Store(path)


def test_store_has_one_writer(tmp_path: Path) -> None:
    with Store(tmp_path / "s.store"), pytest.raises(StorageError, match="in use by another run"):
        Store(tmp_path / "s.store")


def test_store_survives_kill(tmp_path: Path) -> None:
    """Twenty kill -9 at random times: every record that was put is whole, none twice."""
    path = tmp_path / "s.store"
    code = f"from advchain.store import Store\ns = Store({str(path)!r})\n"
    code += "n = len(s)\nprint('up', flush=True)\nwhile True:\n    s.put(str(n), 'x' * 500)\n    n += 1\n"
    known = 0
    for round_ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.003 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Store(path) as store:
            assert len(store) >= known
            assert all(store.get(str(i)) == "x" * 500 for i in range(len(store)))
            known = len(store)
    assert known > 0


def test_key_depends_on_every_part() -> None:
    base = {"model": "m", "prompt": "p", "seed": 1, "temperature": 0.7}
    keys = {make_key(**base)} | {make_key(**(base | {name: "other"})) for name in base}
    assert len(keys) == len(base) + 1
    assert make_key(**base) == make_key(**dict(reversed(base.items())))


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("kept")
    with pytest.raises(DataError), new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise DataError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out/old").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "w.bin"), RuntimeError("IoError: No space left on device (os error 28)")])
def test_a_full_disk_is_told_as_one_however_a_library_says_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StorageError, match=r"cannot make .*out: No space left on device"), new_folder(tmp_path / "out"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_write_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    """Only its own, and only of processes that are gone."""
    gone, running, other = (tmp_path / name for name in (".a.json.4194305.tmp", f".a.json.{os.getppid()}.tmp", ".b.json.4194305.tmp"))
    for path in (gone, running, other):
        path.write_text("half")
    write_json(tmp_path / "a.json", {})
    assert not gone.exists() and running.exists() and other.exists()
