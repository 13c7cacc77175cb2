"""RELIABILITY E1, E3, E5, E6: a wrong config is told before any job: one paragraph, file, line, what to do. No key, path or shell command gets in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from advchain import catalogue, entries
from advchain.config import Config, load_config
from advchain.errors import ConfigError
from advchain.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config/config.yaml"


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: {DEFAULT}\n{text}")
    return load_config([path])


def told(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        Plan(read(tmp_path, text))
    assert "\n" not in str(error.value)
    return str(error.value)


WRONG = {
    "typo": ("train:\n  epoch: 3\n", ["own.yaml, line 3", "unknown key 'epoch'", "Did you mean 'epochs'?"]),
    "typo of a section": ("trian: {epochs: 3}\n", ["line 2", "Did you mean 'train'?"]),
    "yes as a number": ("train: {epochs: yes}\n", ["line 2", "train.epochs", "a number is expected", "truth value"]),
    "off as a number": ("train:\n  batch_size: 8\n  warmup_ratio: off\n", ["line 4", "a number is expected"]),
    "no as a name": ("name: no\n", ["line 2", "name", "valid string", "false"]),
    "a word as a number": ("train: {learning_rate: fast}\n", ["line 2", "valid number", '"fast"']),
    "out of range": ("train: {learning_rate: 2}\n", ["line 2", "less than 1"]),
    "a list for a number": ("train: {epochs: [3]}\n", ["line 2", "valid integer"]),
    "a choice that is none": ("train: {precision: fp16}\n", ["line 2", "'bf16' or 'fp32'"]),
    "duplicate keys": ("seed: 1\nseed: 2\n", ["line 3", "given twice (first in line 2)"]),
    "duplicate keys inside": ("train: {epochs: 1, epochs: 2}\n", ["'epochs' is given twice"]),
    "a tab": ("train:\n\tepochs: 3\n", ["own.yaml, line 3", "indent with spaces"]),
    "contradiction": ("train: {keep: best}\n", ["line 2", "set `holdout_rows`"]),
    "counts that do not fit": ("data: {size: 400}\n", ["raise its count or lower data.size"]),
    "unknown model": ("grid: {main: {models: [smolm2-135m]}}\n", ["grid.main.models", "Did you mean 'smollm2-135m'?"]),
    "unknown judge": ("evaluation: {judges: {safety: [string_mach]}}\n", ["Did you mean 'string_match'?"]),
    "unknown evaluation": ("grid: {main: {benchmarks: [harmbenhc]}}\n", ["Did you mean 'harmbench'?"]),
    "shell in a name": ('evaluation: {benchmarks: {"x; touch pwned": {benchmark: xstest}}}\n', ["is not a name"]),
    "substitution in a name": ('sources: {"$(touch pwned)": {loader: star1}}\n', ["is not a name"]),
    "line feed in a name": ('name: "a\\nb"\n', ["name", "pattern"]),
    "line feed at a name's end": ('chains: {"tc\\n": {kind: temptation, source: star1, count: 1}}\n', ["is not a name"]),
    "a path as a name": ('sources: {"../../etc/x": {loader: star1}}\n', ["is not a name"]),
    "a path as a benchmark's name": ('evaluation: {benchmarks: {"../x": {benchmark: xstest}}}\n', ["is not a name"]),
    "a path as a loader": ("sources: {star1: {loader: ../../x}}\n", ["no file ../../x.py"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_e1_e5_e6_what_is_wrong_is_told_before_any_job(name: str, tmp_path: Path) -> None:
    text, words = WRONG[name]
    message = told(tmp_path, text)
    assert all(word in message for word in words), message


def test_e1_an_empty_file_and_no_file(tmp_path: Path) -> None:
    for text, words in (("", "an empty file"), ("- 1\n", "found list"), (None, "cannot read")):
        path = tmp_path / "empty.yaml"
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config([path])


def test_e1_what_is_meant_is_read(tmp_path: Path) -> None:
    """1e-4 is a number, `on` a choice where it is one, anchors and merges work; the line that is told is that of the file that has the setting."""
    text = "train: &t {learning_rate: 1e-4, compile: on}\ncontamination: {strict: on}\nevaluation:\n  benchmarks:\n"
    text += "    xstest: &x {limit: 3}\n    math500: {<<: *x, temperature: 0}\n"
    config = read(tmp_path, text)
    assert config.train.learning_rate == 1e-4 and config.train.compile == "on" and config.contamination.strict is True
    assert config.evaluation.benchmarks["math500"].limit == 3 and config.evaluation.benchmarks["math500"].temperature == 0
    (tmp_path / "middle.yaml").write_text(f"extends: {DEFAULT}\n\n\ntrain: {{epochs: none}}\n")
    (tmp_path / "last.yaml").write_text("extends: middle.yaml\nname: last\n")
    with pytest.raises(ConfigError, match=r"middle\.yaml, line 4: train\.epochs"):
        load_config([tmp_path / "last.yaml"])


def teacher(**changes: Any) -> str:
    """What is told about a teacher entry."""
    entry = catalogue.catalogue("teachers")["openai"] | changes
    with mock.patch.dict(catalogue.catalogue("teachers"), {"wrong": entry}), pytest.raises(ConfigError) as error:
        Plan(load_config([DEFAULT], {"chains": {"tc": {"teacher": "wrong"}}}))
    entries._parsed.cache_clear()
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "sk-CANARY"},
        {"api_key_env": "sk-CANARY"},
        {"api_key_env": "skCANARYabc0123"},
        {"base_url": "https://user:CANARY@example.org/v1"},
        {"base_url": "https://example.org/v1?key=CANARY"},
    ],
)
def test_e3_a_key_in_a_file_is_refused_and_not_shown(changes: dict[str, str]) -> None:
    assert "CANARY" not in teacher(**changes)


def test_e5_a_catalogue_name_that_a_shell_would_read_is_refused() -> None:
    entry = catalogue.catalogue("models")["smollm2-135m"]
    with mock.patch.dict(catalogue.catalogue("models"), {"x; touch pwned": entry}), pytest.raises(ConfigError, match="is not a name"):
        Plan(load_config([DEFAULT], {"grid": {"main": {"models": ["x; touch pwned"]}}}))


LEADING_OUT = {  # catalogue -> (an entry of it, settings that name one by `name`)
    "models": ("smollm2-135m", lambda name: {"grid": {"main": {"models": [name]}}}),
    "methods": ("star1", lambda name: {"grid": {"main": {"methods": [name]}}}),
    "recipes": ("advchain", lambda name: {"grid": {"main": {"methods": [name]}}}),
    "teachers": ("openai", lambda name: {"chains": {"tc": {"teacher": name}}}),
    "judges": ("embedded_guard", lambda name: {"evaluation": {"judges": {"safety": [name]}}}),
}


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("path", ["../../x", "/tmp/x", "..", "a/b"])
def test_e6_a_catalogue_name_that_leads_out_is_refused(name: str, path: str) -> None:
    known, settings = LEADING_OUT[name]
    entry = catalogue.catalogue(name)[known]
    with mock.patch.dict(catalogue.catalogue(name), {path: entry}), pytest.raises(ConfigError, match="is not a name"):
        Plan(load_config([DEFAULT], settings(path)))


def test_e4_e5_nothing_runs_code_of_others_or_a_shell_with_data() -> None:
    """What no line of the package says: remote code, unpickling, a shell, eval, YAML that makes objects."""
    says = r"trust_remote_code=True|shell=True|pickle\.load|weights_only=False|yaml\.load\(|os\.system\(|jinja2\.Environment\("
    found = subprocess.run(["grep", "-rnE", says, "--include=*.py", "advchain", "scripts"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout


@pytest.mark.parametrize("program", ["estimate", "snakemake"])
def test_e1_the_programs_say_it_too(tmp_path: Path, program: str) -> None:
    """One paragraph, no traceback. (Of a tab Snakemake tells itself, without the line: it reads the file before us.)"""
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: {DEFAULT}\nseed: 1\nseed: 2\n")
    line = [ROOT / "scripts/estimate.py", "--config", path]
    if program == "snakemake":
        line = ["-m", "snakemake", "-s", ROOT / "Snakefile", "-d", tmp_path, "-n", "--configfile", path]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "own.yaml, line 3: 'seed' is given twice" in done.stderr and "Traceback" not in done.stderr
