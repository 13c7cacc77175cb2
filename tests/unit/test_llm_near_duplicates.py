"""The near-duplicate index says the same as comparing every pair, and rows are read on demand in the order of a list that is shuffled."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chains_build import chains

from advchain import io
from advchain.chains.rows import SourceRows
from advchain.errors import DataError
from advchain.llm.replies import Rejected
from advchain.llm.screening import NearDuplicates, ngrams

SENTENCES = [f"the {a} {b} stood near a {c} gate on that day" for a in ("old", "red", "sad") for b in ("cat", "dog") for c in ("low", "big", "new", "far")]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4).map(". ".join), min_size=1, max_size=90), st.sampled_from([0.2, 0.35, 0.5, 0.8, 1.0])
)
def test_as_comparing_every_pair(texts: list[str], cap: float) -> None:
    known, kept = NearDuplicates(cap), list[set[tuple[str, ...]]]()
    for text in texts:
        grams = ngrams(text)
        share = max((len(grams & other) / len(grams) for other in kept), default=0.0)
        assert known.share(text) == pytest.approx(share)
        try:
            known.add(text)
            assert share <= cap
            kept.append(grams)
        except Rejected as error:
            assert share > cap and error.reason == "near_duplicate"


def test_short_texts_have_no_grams() -> None:
    known = NearDuplicates()
    known.add("Too short to count.")
    known.add("Too short to count.")
    assert known.share("Too short to count.") == 0.0


def test_rows_on_demand(tmp_path: Path) -> None:
    rows = chains(50)
    io.write_jsonl(tmp_path / "rows.jsonl", rows)
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "odd.jsonl").write_text("\ufeff" + text.replace("\n", "\n\n", 7) + "  \n")
    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    for name in ("rows", "odd"):
        found = SourceRows(tmp_path / f"{name}.jsonl", 3)
        assert list(found) == shuffled and found[3:6] == shuffled[3:6] and len(found) == 50
        found.close()


def test_a_bad_row_stops_before_anything_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(chains(1)[0].model_dump_json() + '\n{"id": 1}\n')
    with pytest.raises(DataError, match="line 2"):
        SourceRows(path, 0)
