"""10,000 random cases (ADVCHAIN_CASES sets another number): no kept row breaks an invariant, no row is lost without a record."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advchain.datasets.contamination.compare import Comparison
from advchain.datasets.mix import Part, mix, plain_sample
from advchain.errors import DataError
from advchain.manifests import Rejects
from advchain.records import Chain, Item, Sample, Step
from advchain.rows import fold
from advchain.sources import star1
from advchain.sources.parse import TEMPLATE_TOKEN
from advchain.specs import ContaminationSpec, DatasetSpec, RecipePart
from advchain.steps import join_steps, split_steps

CASES = int(os.environ.get("ADVCHAIN_CASES", "10000"))
QUICK = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
STEPS = ("all", "base", "correction", "error", "filler", "prefix")
ROLES = {
    "all": r"b+(ec)+b+",
    "base": r"b+",
    "correction": r"b+c+b+",
    "error": r"b+e+b+",
    "filler": r"b+(ff)+b+",
    "prefix": r"e?b+",
}
STRICT = ContaminationSpec(version=1)


def chains_of(name: str, nature: str, texts: list[str], count: int) -> list[Chain]:
    """Chains whose steps and answers are made of arbitrary texts; prompts differ in more than case and spacing."""
    rows = []
    for number in range(count):
        steps = [texts[(number + i) % len(texts)] for i in range(2 + number % 3)]
        prompt = f"{name} request {number} {texts[number % len(texts)]}"
        rows.append(Chain(id=f"{name}-{number}", source=name, nature=nature, prompt=prompt, steps=steps, answer=texts[-1 - number % len(texts)]))
    return rows


def rewritten(chain: Chain, kind: str, number: int) -> Sample:
    """A chain with one or two errors and corrections, and seams where two authors meet."""
    k = 1 + number % (len(chain.steps) - 1)
    base = [Step(text=text) for text in chain.steps]
    error = Step(text=f"maybe this is fine after all {chain.steps[0]}", role="error", seam="Hmm. " if number % 2 else "")
    block = [error, Step(text="no it is not fine", role="correction")] * (1 + number % 2)
    steps = (*base[:k], *block, base[k].model_copy(update={"seam": "So, "}), *base[k + 1 :])
    return plain_sample(chain).model_copy(update={"id": f"{kind}-{chain.id}", "kind": kind, "steps": steps, "insertion": k, "teacher": "t"})


@st.composite
def recipes(draw: st.DrawFn) -> tuple[DatasetSpec, dict[str, list[Chain]], list[int]]:
    texts = draw(st.lists(TEXT, min_size=1, max_size=4))
    sizes = draw(st.lists(st.integers(0, 8), min_size=3, max_size=3))
    sources = {
        name: chains_of(name, nature, texts, size) for (name, nature), size in zip((("h", "harmful"), ("b", "benign"), ("p", "harmful")), sizes, strict=True)
    }
    counts = [draw(st.integers(0, size + 1)) for size in sizes]
    steps = [draw(st.sampled_from(STEPS)) for _ in range(2)]
    parts = (
        RecipePart(chains="tc", count=counts[0], steps=steps[0]),
        RecipePart(chains="hc", count=counts[1], steps=steps[1]),
        RecipePart(source="p", count=counts[2]),
    )
    strict = STRICT if draw(st.integers(0, 3)) == 0 else None
    spec = DatasetSpec(version=1, recipe="r", title="r", parts=parts, seed=draw(st.integers(0, 99)), shuffle=draw(st.booleans()), strict=strict)
    return spec, sources, draw(st.lists(st.integers(0, 23), max_size=3))


def parts_of(spec: DatasetSpec, sources: dict[str, list[Chain]]) -> list[Part]:
    rows = (
        [rewritten(chain, "tc", i) for i, chain in enumerate(sources["h"])],
        [rewritten(chain, "hc", i) for i, chain in enumerate(sources["b"])],
        [plain_sample(chain) for chain in sources["p"]],
    )
    return [Part(wanted, found, "rows") for wanted, found in zip(spec.parts, rows, strict=True)]


def check_row(row: Sample, chain: Chain, before: Sample, steps: str) -> None:
    """One kept row against the source row it was made from."""
    assert (row.prompt, row.answer, row.nature, row.source) == (chain.prompt, chain.answer, chain.nature, chain.source)
    assert tuple(step.text for step in row.steps if step.role == "base") == chain.steps
    roles = "".join(step.role[0] for step in row.steps)
    assert re.fullmatch("b+" if before.kind == "plain" else ROLES[steps], roles), (steps, roles)
    assert Sample.model_validate_json(row.model_dump_json()) == row
    if row.kind == "plain":
        assert row.thinking == join_steps(chain.steps) and row.insertion is None and row.teacher == ""
    if steps == "all":
        assert row == before
    if row.kind in ("tc", "hc"):
        assert roles[: row.insertion + 1] == "b" * row.insertion + "e"
    if steps == "filler":
        assert len(row.thinking.split()) == len(before.thinking.split())


def mixed(spec: DatasetSpec, parts: list[Part], comparison: Comparison | None) -> tuple[list[Sample], Rejects]:
    """The rows of a training set, and what was dropped."""
    with closing(mix(spec, parts, comparison)) as made:
        return list(made), made.rejects


@settings(max_examples=CASES * 8 // 10, **QUICK)
@given(recipes())
def test_mixing(case: tuple[DatasetSpec, dict[str, list[Chain]], list[int]]) -> None:
    spec, sources, planted = case
    chains = {chain.prompt: chain for rows in sources.values() for chain in rows}
    everything = list(chains.values())
    items = [Item(id=f"i{n}", benchmark="b", nature="harmful", prompt=f" {everything[n % len(everything)].prompt.upper()} ") for n in planted if everything]
    comparison = Comparison({"b": items}, STRICT) if spec.strict else None
    banned = {fold(item.prompt) for item in items} if spec.strict else set()
    parts = parts_of(spec, sources)
    available = [sum(fold(row.prompt) not in banned for row in part.rows) for part in parts]
    try:
        samples, rejects = mixed(spec, parts, comparison)
    except DataError:
        # Near copies of a planted prompt are dropped too, so with planted prompts a part may hold fewer rows than these.
        assert not any(part.count for part in spec.parts) or any(p.count > n for p, n in zip(spec.parts, available, strict=True)) or banned
        return
    before = {row.id: (row, part.wanted.steps) for part in parts for row in part.rows}
    assert len({row.id for row in samples}) == len(samples) == sum(part.count for part in spec.parts)
    for part in parts:
        assert sum(row.id in {r.id for r in part.rows} for row in samples) == part.wanted.count
    for row in samples:
        check_row(row, chains[row.prompt], *before[row.id])
    assert not banned & {fold(row.prompt) for row in samples}
    lost = [row["id"] for row in rejects.rows]
    assert len(set(lost)) == len(lost) and not set(lost) & {row.id for row in samples} and set(lost) <= set(before)
    assert (spec.strict is not None or not lost) and all(row["reason"] == "contaminated" for row in rejects.rows)
    again, _ = mixed(spec, parts_of(spec, sources), comparison)
    assert again == samples
    if spec.shuffle:
        other = spec.model_copy(update={"parts": tuple(part.model_copy(update={"steps": "base"}) for part in spec.parts)})
        assert [row.id for row in mixed(other, parts_of(other, sources), comparison)[0]] == [row.id for row in samples]


VALUE = st.one_of(st.none(), st.integers(), st.booleans(), TEXT, st.just(""), st.lists(TEXT, max_size=2))
GOOD = st.builds("<think>\n{}\n</think>\n\n{}".format, TEXT, TEXT)
RESPONSE = st.one_of(GOOD, st.builds("{}</think>{}".format, st.just("") | TEXT, st.just("") | TEXT), st.builds("<think>{}".format, TEXT), TEXT)
NAME = st.sampled_from(["1", "2", 1])
SOUND = st.fixed_dictionaries({"id": NAME, "question": TEXT, "response": GOOD})
ROW = st.fixed_dictionaries({}, optional={"id": NAME | VALUE, "question": TEXT | VALUE, "response": RESPONSE | VALUE, "category": VALUE})
LINE = st.one_of(SOUND.map(lambda row: json.dumps(row).encode()), ROW.map(lambda row: json.dumps(row).encode()), st.binary(max_size=12))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "a.jsonl"


@settings(max_examples=CASES * 2 // 10, **QUICK)
@given(lines=st.lists(LINE.map(lambda line: line.replace(b"\n", b" ").replace(b"\x1f\x8b", b"")), max_size=6))
def test_reading(file: Path, lines: list[bytes]) -> None:
    lines = [b"{}", *lines]  # the first line says that these are lines of JSON
    file.write_bytes(b"\n".join(lines))
    rejects = Rejects()
    try:
        chains = list(star1.load(file, rejects))
    except DataError as error:
        assert str(file) in str(error) and "no column 'question'" in str(error)
        return
    assert len(chains) + len(rejects) == sum(bool(line.decode("utf-8", "replace").strip()) for line in lines)
    assert len({chain.id for chain in chains}) == len({fold(chain.prompt) for chain in chains}) == len(chains)
    for chain in chains:
        assert chain.prompt.strip() and chain.answer.strip() and chain.steps and all(step.strip() for step in chain.steps)
        assert not any(TEMPLATE_TOKEN.search(text) for text in (chain.prompt, chain.answer, *chain.steps))
        assert split_steps(join_steps(chain.steps)) == list(chain.steps)
