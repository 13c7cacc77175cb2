"""What scripts share: one paragraph per user error, and finding it again in the logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from advchain import cli

SCRIPT = """
from advchain import cli
from advchain.errors import DataError

def main():
    raise {error}

cli.run(main)
"""


def run(error: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(error=error)], capture_output=True, text=True)


def test_a_user_error_is_one_paragraph_and_a_bug_keeps_its_traceback() -> None:
    told = run('DataError("rows.jsonl, line 3: no column.")')
    assert (told.returncode, told.stderr) == (1, "\nerror: rows.jsonl, line 3: no column.\n")
    assert "Traceback" in run('KeyError("x")').stderr


def test_errors_of_this_run_are_found_in_the_logs(tmp_path: Path) -> None:
    for name, text in (("old", "error: long ago"), ("a/new", "12:00:00 INFO row\n\nerror: no column\n"), ("b/fine", "12:00:00 INFO error: none")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.log").write_text(text)
    os.utime(tmp_path / "old.log", (100, 100))
    assert cli.errors_told(tmp_path, since=200) == [f"error: no column [{tmp_path / 'a/new.log'}]"]


def test_scripts_and_package_are_found_first(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    cli.put_on_path(tmp_path)
    assert os.environ["PATH"].split(os.pathsep) == [str(tmp_path / "scripts"), str(Path(sys.executable).parent), "/usr/bin"]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "/mine"]
