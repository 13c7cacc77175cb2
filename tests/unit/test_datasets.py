"""Mixing recipes: counts, the no-injection control, order, ids, and a card that quotes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from advchain.benchmarks.read import read_prompts
from advchain.datasets.card import statistics
from advchain.datasets.mix import build_dataset, plain_sample, without_injection
from advchain.errors import ConfigError, DataError
from advchain.io import Rejects, manifest_path, read_records, write_jsonl, write_stage
from advchain.records import Chain, Sample, Step
from advchain.sources.read import read_source
from advchain.specs import DatasetSpec, PromptsSpec, RecipePart, SourceSpec
from advchain.steps import join_steps

ROOT = Path(__file__).resolve().parents[2]


def inject(chain, kind, k):
    """A chain with one error and one correction after its first k steps, and a seam on the step after."""
    base = [Step(text=text) for text in chain.steps]
    wrong = [Step(text="Maybe it is fine.", role="error", seam="Hmm. "), Step(text="No, it is not.", role="correction")]
    steps = (*base[:k], *wrong, base[k].model_copy(update={"seam": "So, "}), *base[k + 1 :])
    return plain_sample(chain).model_copy(update={"kind": kind, "steps": steps, "insertion": k, "teacher": "embedded"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sample sources with their manifests, and chain sets made from them."""
    folder = tmp_path_factory.mktemp("made")
    files = {}
    for name in ("star1", "star_benign"):
        files[name] = folder / f"{name}.jsonl"
        read_source(files[name], SourceSpec(version=1, name=name, loader=name, origin="sample"), folder)
    rejects = Rejects()
    rejects.add("star1-x", "teacher_refused")
    for kind, name in (("tc", "star1"), ("hc", "star_benign")):
        files[kind] = folder / f"{kind}.jsonl"
        rows = [inject(chain, kind, 1 + index % (len(chain.steps) - 1)) for index, chain in enumerate(read_records(files[name], Chain))]
        write_stage(files[kind], rows, stage="chains", spec={"seed": 5}, inputs=[files[name]], rejects=rejects)
    return files


def spec(*parts, **change):
    return DatasetSpec(**{"version": 1, "recipe": "r", "title": "A recipe", "parts": tuple(RecipePart(**part) for part in parts), "seed": 3} | change)


def build(tmp_path, made, wanted, prompts=()):
    chains, sources = ({name: made[name] for name in names} for names in (("tc", "hc"), ("star1", "star_benign")))
    build_dataset(tmp_path / "d.jsonl", tmp_path / "d.card.md", wanted, chains, sources, prompts)
    return read_records(tmp_path / "d.jsonl", Sample)


MIX = ({"chains": "tc", "count": 8}, {"chains": "hc", "count": 2})


def test_counts_by_part_and_first_rows_of_each(tmp_path, made):
    samples = build(tmp_path, made, spec(*MIX))
    assert statistics(samples)["kinds"] == {"tc": 8, "hc": 2}
    first = {sample.id for sample in read_records(made["tc"], Sample)[:8]} | {sample.id for sample in read_records(made["hc"], Sample)[:2]}
    assert {sample.id for sample in samples} == first


def test_control_is_the_source_byte_for_byte_in_the_same_order(tmp_path, made):
    treated = build(tmp_path, made, spec(*MIX))
    control = build(tmp_path, made, spec(*({**part, "steps": "base"} for part in MIX), recipe="no_injection"))
    chains = {chain.id: chain for name in ("star1", "star_benign") for chain in read_records(made[name], Chain)}
    assert [sample.id for sample in control] == [sample.id for sample in treated]
    for ours, theirs in zip(control, treated, strict=True):
        same = (ours.prompt, ours.answer) == (theirs.prompt, theirs.answer) and ours.thinking == join_steps(chains[ours.id].steps) != theirs.thinking
        assert same, ours.id
        assert (ours.kind, ours.insertion, ours.teacher) == ("plain", None, "")
        untouched = ours == plain_sample(chains[ours.id])
        assert untouched, ours.id


def test_without_injection_leaves_plain_rows_alone(made):
    sample = plain_sample(read_records(made["star1"], Chain)[0])
    assert without_injection(sample) == sample


def test_source_parts_are_plain(tmp_path, made):
    samples = build(tmp_path, made, spec({"source": "star1", "count": 5}, {"chains": "hc", "count": 5}))
    assert statistics(samples)["kinds"] == {"hc": 5, "plain": 5}
    assert {sample.source for sample in samples if sample.kind == "plain"} == {"star1"}


def test_order_is_seeded(tmp_path, made):
    order = [sample.id for sample in build(tmp_path, made, spec(*MIX))]
    assert [sample.id for sample in build(tmp_path, made, spec(*MIX))] == order
    assert [sample.id for sample in build(tmp_path, made, spec(*MIX, seed=4))] != order
    unshuffled = build(tmp_path, made, spec(*MIX, shuffle=False))
    assert [sample.kind for sample in unshuffled] == ["tc"] * 8 + ["hc"] * 2


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        (({"chains": "tc", "count": 65},), DataError, r"parts\[0\]: 65 rows of .*tc.jsonl are needed, 64 are there"),
        (({"chains": "tc", "count": 2}, {"source": "star1", "count": 2}), DataError, "comes from two parts"),
        (({"chains": "tcc", "count": 2},), ConfigError, "no file was given for 'tcc'.*Did you mean 'tc'"),
        (({"source": "star", "count": 2},), ConfigError, "no file was given for 'star'"),
        (({"count": 2},), ConfigError, "give either `chains` or `source`"),
        (({"chains": "tc", "source": "star1", "count": 2},), ConfigError, "give either `chains` or `source`"),
        (({"chains": "tc", "count": 0},), DataError, "0 rows in all"),
    ],
)
def test_bad_recipes(tmp_path, made, parts, kind, message):
    with pytest.raises(kind, match=message) as caught:
        build(tmp_path, made, spec(*parts))
    assert "\n" not in str(caught.value) and not (tmp_path / "d.jsonl").exists()


def test_wrong_kind_of_file_names_line_and_column(tmp_path, made):
    with pytest.raises(DataError, match="line 1, column"):
        build_dataset(tmp_path / "d.jsonl", tmp_path / "c.md", spec({"chains": "tc", "count": 1}), {"tc": made["star1"]}, {})


def test_statistics():
    steps = tuple(Step(text=f"word{i} word") for i in range(4))
    plain = Sample(id="p", kind="plain", nature="benign", prompt="x", steps=steps, answer="a b c", category=("k", "l"))
    wrong = Step(text="one two three", role="error", seam="Hmm ")
    injected = plain.model_copy(update={"id": "t", "kind": "tc", "steps": (*steps[:3], wrong, steps[3]), "insertion": 3})
    figures = statistics([plain, injected])
    assert (figures["mean_steps"], figures["mean_chain_words"], figures["mean_answer_words"], figures["mean_injected_words"]) == (4.5, 10.0, 3.0, 2.0)
    assert figures["positions"] == [0, 0, 0, 1, 0] and figures["repeated_prompts"] == 1 and figures["categories"] == {"k": 2, "l": 2}


def test_card_has_the_facts_and_no_text_of_the_rows(tmp_path, made):
    read_prompts(tmp_path / "harmbench.jsonl", PromptsSpec(version=1, name="harmbench", benchmark="harmbench", origin="sample"), tmp_path)
    samples = build(tmp_path, made, spec(*MIX), [tmp_path / "harmbench.jsonl"])
    card = (tmp_path / "d.card.md").read_text()
    manifest = json.loads(manifest_path(tmp_path / "d.jsonl").read_text())
    for fact in (
        "# A recipe",
        "| tc | 8 |",
        "| hc | 2 |",
        "embedded (10 rows)",
        manifest["output"]["sha256"],
        "teacher_refused 1",
        "| tc.jsonl | 64 |",
        "| harmbench | 0 |",
        "0-20%",
    ):
        assert fact in card, fact
    quoted = [sample.id for sample in samples if any(text in card for text in (sample.prompt, sample.answer, *(step.text for step in sample.steps)))]
    assert quoted == []
    assert manifest["counts"]["kinds"] == {"tc": 8, "hc": 2} and manifest["counts"]["overlap"] == {"harmbench": 0}


def test_card_lists_planted_overlap_by_id(tmp_path, made):
    samples = build(tmp_path, made, spec(*MIX))
    item = {"id": "item-1", "benchmark": "b", "nature": "harmful", "prompt": "wrapped", "request": "  " + samples[0].prompt.upper() + "\n"}
    write_jsonl(tmp_path / "b.jsonl", [item])
    build(tmp_path, made, spec(*MIX), [tmp_path / "b.jsonl"])
    assert f"b: {samples[0].id} = item-1" in (tmp_path / "d.card.md").read_text()


def test_real_star1_overlap_with_harmbench(tmp_path, data_root):
    star, harmbench = tmp_path / "star1.jsonl", tmp_path / "harmbench.jsonl"
    read_source(star, SourceSpec(version=1, name="star1", loader="star1", origin="local", path=str(data_root / "train/star1/STAR-1.json")), tmp_path)
    path = str(data_root / "eval/harmbench/harmbench_behaviors_text_all.csv")
    read_prompts(harmbench, PromptsSpec(version=1, name="harmbench", benchmark="harmbench", origin="local", path=path), tmp_path)
    build_dataset(tmp_path / "d.jsonl", tmp_path / "d.card.md", spec({"source": "star1", "count": 1000}), {}, {"star1": star}, [harmbench])
    assert json.loads(manifest_path(tmp_path / "d.jsonl").read_text())["counts"]["overlap"] == {"harmbench": 2}
    assert "| harmbench | 2 |" in (tmp_path / "d.card.md").read_text()


def test_script(tmp_path, made):
    command = [
        sys.executable,
        ROOT / "scripts/dataset.py",
        "--out",
        tmp_path / "d.jsonl",
        "--card",
        tmp_path / "d.md",
        "--chains",
        f"tc={made['tc']}",
        f"hc={made['hc']}",
    ]
    subprocess.run([*command, "--sources", "--spec", spec(*MIX).model_dump_json()], check=True, capture_output=True)
    assert len(read_records(tmp_path / "d.jsonl", Sample)) == 10 and (tmp_path / "d.md").is_file()
    done = subprocess.run([*command[:-2], "--chains", "tc", "--spec", spec(*MIX).model_dump_json()], capture_output=True, text=True)
    assert done.returncode == 1 and "'tc' is not name=path" in done.stderr and "Traceback" not in done.stderr
