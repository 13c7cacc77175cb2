"""Options of judges and attacks are checked when the config is read, as their own files would, without importing them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advchain import catalogue
from advchain.catalogue import modules
from advchain.config import load_config
from advchain.errors import ConfigError
from advchain.options import check_options, declared
from advchain.plan import Plan
from advchain.specs import JudgeSpec, TeacherSpec

ROOT = Path(__file__).resolve().parents[2]
FILES = [(folder, name) for folder in ("judges", "attacks") for name in modules(folder)]


def own_class(folder: str, name: str) -> Any:
    file = importlib.import_module(f"advchain.{folder}.{name}")
    return file.OPTIONS if folder == "judges" else file.ATTACK.options


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_what_is_read_is_what_the_file_has(folder: str, name: str) -> None:
    """Same fields, defaults and bounds, for every judge and attack: the two JSON schemas are equal but for words."""
    read = declared(folder, name)
    assert read is not None, "a file says which class its options are"

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(part) for key, part in value.items() if key not in ("description", "title")}
        return value

    assert bare(read.model_json_schema()) == bare(own_class(folder, name).model_json_schema())


@pytest.mark.parametrize("name", modules("judges"))
def test_a_judges_options_are_those_it_reads(name: str, tmp_path: Path) -> None:
    asks = modules("judges")[name].constants.get("ASKS", False)
    spec = JudgeSpec(version=1, name="j", kind=name, options={"nonsense": 1}, teacher=TeacherSpec(name="t", base_url="http://x", model="m") if asks else None)
    with pytest.raises(ConfigError) as own:
        importlib.import_module(f"advchain.judges.{name}").build(spec, tmp_path)
    with pytest.raises(ConfigError) as planned:
        check_options(declared("judges", name), {"nonsense": 1}, "judges.j.options")  # type: ignore[type-var]
    assert str(own.value) == str(planned.value)


def message(overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Plan(load_config([ROOT / "config/config.yaml"], overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def attack(name: str, **options: Any) -> dict[str, Any]:
    return {"evaluation": {"benchmarks": {"mine": {"attack": {"name": name, "benchmarks": ["harmbench"], "options": options}}}}}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (attack("no_think", thougt="zero"), ["mine.attack.options.thougt", "Did you mean 'thought'?"]),
        (attack("no_think", thought="none"), ["mine.attack.options.thought", "'zero' or 'less'", "Got 'none'"]),
        (
            {"evaluation": {"benchmarks": {"cot_hijack": {"attack": {"options": {"pivots": 4}}}}}},
            ["cot_hijack.attack.options.pivots", "less than or equal to 3"],
        ),
        ({"evaluation": {"judges": {"safety": ["maths"]}}}, ["'maths' tells right answers from wrong ones"]),
    ],
)
def test_a_bad_option_stops_before_any_job(overrides: dict[str, Any], parts: list[str]) -> None:
    text = message(overrides)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("entry", "change", "parts"),
    [
        ("embedded_guard", {"options": {"treshold": 0.5}}, ["config/judges.yaml: embedded_guard: options.treshold", "Did you mean 'threshold'?"]),
        ("embedded_guard", {"options": {"threshold": 2}}, ["options.threshold", "less than 1", "Got 2"]),
        ("embedded_guard", {"teacher": "openai"}, ["asks nobody; leave `teacher` out"]),
        ("gpt4o_harm", {"teacher": None}, ["asks an endpoint; name one with `teacher:`"]),
        ("llama_guard_3_8b", {"options": {"variant": "70b"}}, ["options.variant", "'8b' or '1b'"]),
    ],
)
def test_a_bad_judge_entry_stops_before_any_job(entry: str, change: dict[str, Any], parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    known, whole = dict(catalogue.catalogue("judges")), catalogue.catalogue
    known[entry] = {**known[entry], **change}
    monkeypatch.setattr(catalogue, "catalogue", lambda name: known if name == "judges" else whole(name))
    text = message({"evaluation": {"judges": {"safety": [entry]}}})
    assert all(part in text for part in parts), text


def test_a_forced_chain_needs_an_endpoint_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known, whole = dict(catalogue.catalogue("models")), catalogue.catalogue
    known["served"] = {"title": "served", "origin": "endpoint:openai", "family": "qwen3"}
    monkeypatch.setattr(catalogue, "catalogue", lambda name: known if name == "models" else whole(name))
    grid = {"models": ["served"], "methods": ["base"], "benchmarks": ["cot_hijack"]}
    assert "attack 'cot_hijack' forces the beginning" in message({"grid": {"more": grid}})
    known["served"]["completions"] = True
    Plan(load_config([ROOT / "config/config.yaml"], {"grid": {"more": grid}}))


def test_no_stage_is_imported_for_it() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom advchain.config import load_config\nfrom advchain.plan import Plan\n"
        f"Plan(load_config([Path({str(ROOT / 'config/attacks.yaml')!r})]))\nprint([name for name in sys.modules if name.startswith('advchain.')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert "advchain.options" in loaded and "advchain.judges" not in loaded and "advchain.attacks" not in loaded
