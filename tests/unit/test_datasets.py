"""Mixing recipes: counts, controls, order, ids, strict mode, and a card that quotes nothing."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from advchain.catalogue import catalogue
from advchain.datasets.card import write_card
from advchain.datasets.contamination.report import write_matches
from advchain.datasets.controls import filler, with_steps, without_injection
from advchain.datasets.mix import build_dataset, plain_sample
from advchain.datasets.statistics import spread, statistics
from advchain.entries import RecipeEntry, method_entry, read_entry
from advchain.errors import ConfigError, DataError, StorageError
from advchain.io import read_records, write_jsonl
from advchain.manifests import Rejects, manifest_path, rejects_path, write_stage
from advchain.plan import whole_shares
from advchain.records import Chain, Sample, Step
from advchain.sources.read import read_source
from advchain.specs import ContaminationSpec, DatasetSpec, RecipePart, SourceSpec
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
        counts = {"answers": 300, "input_tokens": 7000, "output_tokens": 900, "usd": 1.25, "rejects_by_category": {"Violence": {"teacher_refused": 1}}}
        write_stage(files[kind], rows, stage="chains", spec={"seed": 5}, inputs=[files[name]], rejects=rejects, counts=counts)
    return files


def spec(*parts, **change):
    return DatasetSpec(**{"version": 1, "recipe": "r", "title": "A recipe", "parts": tuple(RecipePart(**part) for part in parts), "seed": 3} | change)


def inputs(made):
    return tuple({name: made[name] for name in names} for names in (("tc", "hc"), ("star1", "star_benign")))


def build(tmp_path, made, wanted, benchmarks=None):
    build_dataset(tmp_path / "d.jsonl", wanted, *inputs(made), benchmarks)
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
        (({"chains": "tc", "count": 2}, {"source": "star1", "count": 2}), DataError, "comes twice"),
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
        build_dataset(tmp_path / "d.jsonl", spec({"chains": "tc", "count": 1}), {"tc": made["star1"]}, {})


# ------------------------------------------------------------------ controls

WORDS = ["I", "could", "argue", "that", "this", "one", "request", "is", "fine", "and", "simply", "go", "along", "with", "it", "for", "now"]


def injected(seed=0, words=WORDS):
    base = [Step(text=f"base {seed} {i}") for i in range(4)]
    error, correction = Step(text=" ".join(words), role="error", seam="Hmm, well. "), Step(text="No, that would be wrong of me.", role="correction")
    steps = (*base[:2], error, correction, base[2].model_copy(update={"seam": "So, "}), base[3])
    return Sample(id=f"tc-{seed}", kind="tc", nature="harmful", prompt=f"ask {seed}", steps=steps, answer=f"no {seed}", teacher="t", insertion=2)


BASE = ["base 0 0", "base 0 1", "base 0 2", "base 0 3"]


def test_correction_only_drops_the_error_alone():
    made = with_steps(injected(), "correction", 1)
    assert [step.role for step in made.steps] == ["base", "base", "correction", "base", "base"] and (made.kind, made.insertion) == ("control", None)
    assert made.thinking == "\n\n".join([*BASE[:2], "No, that would be wrong of me.", "So, base 0 2", BASE[3]])


def test_error_only_drops_the_correction_alone():
    made = with_steps(injected(), "error", 1)
    assert [step.role for step in made.steps] == ["base", "base", "error", "base", "base"] and (made.kind, made.insertion) == ("control", 2)


def test_filler_has_the_words_and_paragraphs_of_what_it_replaces():
    sample = injected()
    made = with_steps(sample, "filler", 1)
    assert [step.role for step in made.steps] == ["base", "base", "filler", "filler", "base", "base"] and made.kind == "control" and made.teacher == ""
    assert len(made.thinking.split()) == len(sample.thinking.split())
    assert len(made.steps[2].text.split()) == len(sample.steps[2].rendered.split())
    assert [step.rendered for step in made.steps if step.role == "base"] == BASE
    assert with_steps(sample, "filler", 1) == made != with_steps(sample, "filler", 2)


def test_filler_hits_every_length_without_repeating_itself():
    for number in range(1, 200):
        text = filler(number, random.Random(number))
        assert len(text.split()) == number
    sentences = re.findall(r"[^.]+\.", filler(90, random.Random(3)))
    assert len(set(sentences)) == len(sentences)


def test_filler_differs_between_rows():
    texts = {with_steps(injected(i), "filler", 1).steps[2].text for i in range(300)}
    assert len(texts) > 250  # of 19 words, the shortest that occur; longer ones hardly ever agree


def test_prefix_recovery_begins_half_of_the_rows_with_a_cut_error():
    words = [f"w{i}" for i in range(160)]
    made = [with_steps(injected(i, words), "prefix", 1) for i in range(600)]
    cut = [sample for sample in made if sample.kind == "control"]
    assert 0.42 < len(cut) / len(made) < 0.58 and {sample.kind for sample in made} == {"control", "plain"}
    lengths = [len(sample.steps[0].text.split()) for sample in cut]
    assert 1 <= min(lengths) <= 5 and 95 <= max(lengths) <= 100 and 40 < sum(lengths) / len(lengths) < 61
    for sample in cut:
        assert sample.insertion == 0 and [step.role for step in sample.steps] == ["error", "base", "base", "base", "base"]
        assert " ".join(words).startswith(sample.steps[0].text)
    assert with_steps(injected(1, words), "prefix", 1) == made[1]
    short = [with_steps(injected(i), "prefix", 1) for i in range(600)]
    whole = sum(sample.kind == "control" and sample.steps[0].text == " ".join(WORDS) for sample in short)
    assert 0 < whole < 60, "a short error step is cut at any of its words, not mostly given whole"


def test_plain_rows_pass_every_control_untouched(made):
    sample = plain_sample(read_records(made["star1"], Chain)[0])
    assert all(with_steps(sample, steps, 1) == sample for steps in ("all", "base", "correction", "error", "filler", "prefix"))


def test_controls_share_rows_and_order_with_the_recipe(tmp_path, made):
    ids = [sample.id for sample in build(tmp_path, made, spec(*MIX))]
    for steps in ("base", "correction", "error", "filler", "prefix"):
        assert [sample.id for sample in build(tmp_path, made, spec(*({**part, "steps": steps} for part in MIX), recipe=steps))] == ids


@pytest.mark.parametrize("recipe", catalogue("recipes"))
def test_every_recipe_of_the_catalogue_mixes_the_rows_it_names(tmp_path, made, recipe):
    entry = read_entry("recipes", recipe, RecipeEntry, "recipes")
    size = round(30 * entry.scale)
    counts = whole_shares([part.share for part in entry.parts], size)
    parts = [RecipePart(chains=p.chains, source=p.source, steps=p.steps, count=n) for p, n in zip(entry.parts, counts, strict=True)]
    wanted = DatasetSpec(version=1, recipe=recipe, title=entry.title, parts=tuple(parts), seed=1)
    chains = {name: made["tc" if name.startswith("tc") else "hc"] for name in ("tc", "hc", "tc_random", "hc_random")}
    sources = dict.fromkeys(("star1", "safechain", "unsafechain", "realsafe"), made["star1"])
    assert build_dataset(tmp_path / "d.jsonl", wanted, chains, sources) == size
    assert len(read_records(tmp_path / "d.jsonl", Sample)) == size and method_entry(recipe, "grid").recipe == recipe


# ------------------------------------------------------------------ strict mode


def strict(**change):
    return ContaminationSpec(**{"version": 1} | change)


def items(path, *prompts):
    write_jsonl(path, [{"id": f"item-{i}", "benchmark": "b", "nature": "harmful", "prompt": prompt} for i, prompt in enumerate(prompts)])
    return {"b": path}


def test_strict_mode_replaces_matching_rows_and_records_them(tmp_path, made):
    wanted = spec(*MIX)
    first = sorted(build(tmp_path, made, wanted), key=lambda sample: sample.id)
    dropped = first[0]
    benchmarks = items(tmp_path / "b.jsonl", "  " + dropped.prompt.upper() + "\n")
    clean = build(tmp_path, made, spec(*MIX, strict=strict()), benchmarks)
    assert len(clean) == 10 and dropped.id not in {sample.id for sample in clean} and len({s.id for s in clean} & {s.id for s in first}) == 9
    rejects = [json.loads(line) for line in rejects_path(tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in rejects] == [(dropped.id, "contaminated")] and rejects[0]["detail"].startswith("b: item-0 (folded")
    assert dropped.prompt.lower() not in json.dumps(rejects).lower()
    assert write_matches(tmp_path / "m.jsonl", tmp_path / "d.jsonl", strict(), benchmarks, {}) == 0
    assert build(tmp_path, made, wanted, benchmarks) != clean, "without strict nothing is dropped"


def test_strict_mode_says_when_too_few_rows_are_left(tmp_path, made):
    prompts = [sample.prompt for sample in read_records(made["tc"], Sample)[:5]]
    with pytest.raises(DataError, match=r"parts\[0\]: 60 rows .* are needed, 59 are there \(5 match a benchmark prompt and were dropped\)"):
        build(tmp_path, made, spec({"chains": "tc", "count": 60}, strict=strict()), items(tmp_path / "b.jsonl", *prompts))


# ------------------------------------------------------------------ the card


def test_statistics():
    steps = tuple(Step(text=f"word{i} word") for i in range(4))
    plain = Sample(id="p", kind="plain", nature="benign", prompt="x", steps=steps, answer="a b c", category=("k", "l"))
    wrong = Step(text="one two three", role="error", seam="Hmm ")
    figures = statistics([plain, plain.model_copy(update={"id": "t", "kind": "tc", "steps": (*steps[:3], wrong, steps[3]), "insertion": 3})])
    assert [figures[name]["mean"] for name in ("steps", "chain_words", "answer_words", "injected_words")] == [4.5, 10.0, 3.0, 2.0]
    assert figures["positions"] == [0, 0, 0, 1, 0] and figures["repeated_prompts"] == 1 and figures["categories"] == {"k": 2, "l": 2}


def test_spread_is_by_nearest_rank():
    assert spread(range(1, 101)) == {"mean": 50.5, "min": 1, "median": 50.5, "p95": 95, "max": 100}
    assert spread([7]) == {"mean": 7.0, "min": 7, "median": 7.0, "p95": 7, "max": 7} and spread([])["max"] == 0


def card(tmp_path, made, benchmarks):
    write_matches(tmp_path / "m.jsonl", tmp_path / "d.jsonl", strict(), benchmarks, {})
    write_card(tmp_path / "d.card.md", tmp_path / "d.jsonl", *inputs(made), tmp_path / "m.jsonl")
    return (tmp_path / "d.card.md").read_text()


def test_card_has_the_facts_and_no_text_of_the_rows(tmp_path, made):
    samples = build(tmp_path, made, spec(*MIX))
    text = card(tmp_path, made, items(tmp_path / "b.jsonl", "something quite different from every row of it", samples[0].prompt))
    manifest = json.loads(manifest_path(tmp_path / "d.jsonl").read_text())
    longest = max(len(sample.thinking.split()) for sample in samples)
    for fact in (
        "# A recipe",
        "| tc | 8 |",
        "| hc | 2 |",
        "embedded (10 rows)",
        manifest["output"]["sha256"],
        "| tc | Violence |",
        "| tc | all | 64 | 1 | 98.5% | teacher_refused 1 |",
        "| tc | teacher_refused | 1 | tc.rejects.jsonl |",
        "| tc | 300 | 7000 | 900 | 1.25 |",
        "| b | 2 | 1 | 1 |",
        f"b: {samples[0].id} = item-1",
        f" {longest} |",
        "0-20%",
    ):
        assert fact in text, fact
    quoted = [sample.id for sample in samples if any(part in text for part in (sample.prompt, sample.answer, *(step.text for step in sample.steps)))]
    assert quoted == []
    assert manifest["counts"]["kinds"] == {"tc": 8, "hc": 2}


def test_card_of_a_control_says_what_it_replaced(tmp_path, made):
    build(tmp_path, made, spec(*({**part, "steps": "filler"} for part in MIX), recipe="filler"))
    text = card(tmp_path, made, items(tmp_path / "b.jsonl", "x"))
    assert "| control | 10 |" in text and "neutral filler of the same number of words" in text


def test_card_without_manifest_says_what_to_do(tmp_path, made):
    build(tmp_path, made, spec(*MIX))
    write_jsonl(tmp_path / "m.jsonl", [])
    with pytest.raises(StorageError, match=r"cannot read .*m.manifest.json: No such file.* Make .* with its rule"):
        write_card(tmp_path / "d.card.md", tmp_path / "d.jsonl", *inputs(made), tmp_path / "m.jsonl")


def test_scripts(tmp_path, made):
    def run(name, *arguments):
        return subprocess.run([sys.executable, ROOT / f"scripts/{name}.py", *map(str, arguments)], capture_output=True, text=True)

    files = ["--chains", f"tc={made['tc']}", f"hc={made['hc']}", "--sources"]
    dataset, matches = tmp_path / "d.jsonl", tmp_path / "m.jsonl"
    items(tmp_path / "b.jsonl", "x")
    assert run("dataset", "--out", dataset, *files, "--spec", spec(*MIX).model_dump_json()).returncode == 0
    compared = ["--benchmarks", f"b={tmp_path / 'b.jsonl'}", "--hijacked", f"held={made['star_benign']}"]
    assert run("contamination", "--out", matches, "--dataset", dataset, *compared, "--spec", strict().model_dump_json()).returncode == 0
    assert run("contamination", "--out", tmp_path / "c.md", "--matches", f"r={matches}").returncode == 0
    assert run("card", "--out", tmp_path / "d.md", "--dataset", dataset, "--matches", matches, *files).returncode == 0
    assert len(read_records(dataset, Sample)) == 10 and "| held | 32 | 2 |" in (tmp_path / "d.md").read_text()
    assert "| r | 0 / 0 | 2 / 2 |" in (tmp_path / "c.md").read_text()
    done = run("dataset", "--out", dataset, "--chains", "tc", "--spec", spec(*MIX).model_dump_json())
    assert done.returncode == 1 and "'tc' is not name=path" in done.stderr and "Traceback" not in done.stderr
