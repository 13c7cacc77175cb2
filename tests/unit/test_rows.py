"""Reading public data files: formats, encodings, and what is said of bad rows."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advchain.errors import DataError
from advchain.rows import Row, prompt_key, ranked, read_rows

ROWS = [{"prompt": "one", "n": "1"}, {"prompt": "two\u2028still two\x85and", "n": "2"}]


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def values(path):
    return [row.values for row in read_rows(path)]


def test_every_format_gives_the_same_rows(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    array = json.dumps(ROWS, ensure_ascii=False, indent=1)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    files = [
        write(tmp_path / "a.jsonl", lines),
        write(tmp_path / "bom.jsonl", "\ufeff" + lines),
        write(tmp_path / "crlf.jsonl", lines.replace("\n", "\r\n")),
        write(tmp_path / "a.json", array),
        write(tmp_path / "bom.json", "\ufeff\n" + array),
        write(tmp_path / "jsonl_in.json", lines),
        write(tmp_path / "a.jsonl.gz", gzip.compress(lines.encode())),
        write(tmp_path / "a.json.gz", gzip.compress(array.encode())),
        write(tmp_path / "a.csv", "prompt,n\r\n" + "".join(f'"{r["prompt"]}",{r["n"]}\r\n' for r in ROWS)),
        write(tmp_path / "bom.csv", "\ufeffprompt,n\n" + "".join(f'"{r["prompt"]}",{r["n"]}\n' for r in ROWS)),
        write(tmp_path / "a.tsv", "prompt\tn\n" + "".join(f"{r['prompt']}\t{r['n']}\n" for r in ROWS)),
        tmp_path / "a.parquet",
    ]
    for path in files:
        assert values(path) == ROWS, path.name


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_not_utf8_names_line_and_byte(tmp_path, name):
    good = {"a.jsonl": b'{"prompt": "x"}\n', "a.json": b'[{"prompt": "x"},\n', "a.csv": b"prompt\n", "a.jsonl.gz": b'{"prompt": "x"}\n'}[name]
    data = good + b'{"prompt": "caf\xe9"}'
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte \d+ .*0xe9.*iconv"):
        values(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "line 2: not JSON"),
        ("a.jsonl", '{"prompt": "x"}\n[1]\n', "line 2: a list where a JSON object"),
        ("a.json", '[{"prompt": "x"}, 3]', "row 2: a int where a JSON object"),
        ("a.json", '[{"prompt": "x"}', "not JSON"),
        ("a.csv", "prompt,n\nx,1,2\n", "row 1: more cells than the 2 columns"),
        ("a.csv", 'prompt,n\n"x,1\n', "not CSV"),
        ("a.parquet", "no", "not a parquet file"),
        ("a.jsonl.gz", "no", "not a whole gzip file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(DataError, match=message) as caught:
        values(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_byte_position_counts_the_byte_order_mark(tmp_path):
    data = b"\xef\xbb\xbfprompt\ncaf\xe9\n"
    with pytest.raises(DataError, match=rf"byte {data.index(0xE9)} of the file is 0xe9"):
        values(write(tmp_path / "a.csv", data))


def test_cut_gzip(tmp_path):
    with pytest.raises(DataError, match="not a whole gzip file"):
        values(write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": "b"}\n' * 50)[:-9]))


def test_empty_file_has_no_rows(tmp_path):
    assert values(write(tmp_path / "a.jsonl", "")) == []
    assert values(write(tmp_path / "a.csv", "")) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "x"}, "f, row 3: no column 'question' or 'prompt'.*known: promt"),
        ({"prompt": 3}, "column 'prompt': a int where a text"),
        ({"prompt": None}, "column 'prompt': null where a text"),
        ({"prompt": {"content": "x"}}, "column 'prompt': a dict where a text"),
        ({"prompt": "  "}, "column 'prompt': the text is empty"),
        ({"prompt": "a\ud800b"}, "column 'prompt': holds half of a surrogate pair"),
    ],
)
def test_bad_cells_are_named(row, message):
    with pytest.raises(DataError, match=message):
        Row("f, row 3", row).text("question", "prompt")


def test_closest_column_is_named():
    with pytest.raises(DataError, match="Did you mean 'quesion'"):
        Row("f, row 3", {"id": 1, "quesion": "x", "response": "y"}).text("question")


def test_prompt_key_folds_case_space_and_unicode_form():
    assert prompt_key("  Caf\u00e9  AU\nlait ") == prompt_key("cafe\u0301 au lait")
    assert prompt_key("a b") != prompt_key("ab")


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.integers(0, 9), st.randoms())
def test_rank_depends_on_id_and_seed_alone(ids, seed, random):
    order = ranked(ids, ids, seed)
    assert sorted(order) == sorted(ids)
    shuffled = random.sample(ids, len(ids))
    assert ranked(shuffled, shuffled, seed) == order
    some = shuffled[: len(ids) // 2]
    assert ranked(some, some, seed) == [name for name in order if name in some]
