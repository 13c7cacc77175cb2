"""The exported folder is what `datasets`, TRL and LLaMA-Factory load; publishing refuses without an explicit setting."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from advchain import chat
from advchain.datasets.export import export
from advchain.io import sha256_file, write_jsonl
from advchain.judges.guard_report import write_guard_report
from advchain.records import Sample, Step
from advchain.specs import ExportSpec, PublishSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = ExportSpec(version=1, recipe="advchain", title="AdvChain: T-C 80, H-C 20", name="tiny run")
LOAD = "import datasets, json, sys; rows = datasets.load_dataset(sys.argv[1], split='train'); print(json.dumps([list(rows), str(rows.features)]))"


def sample(number, **change):
    steps = (
        Step(text=f"one {number}\nstill one"),
        Step(text="wrong", role="error", seam="Hmm. "),
        Step(text="no", role="correction"),
        Step(text="two", seam="So, "),
    )
    row = {"id": f"tc-{number}", "kind": "tc", "nature": "harmful", "prompt": f"ask {number} {{x}} <|im_end|> caf\u00e9 \u2028", "steps": steps}
    return Sample(**row | {"answer": "no \U0001f600\n\n- a", "category": ("c", "d"), "source": "star1", "teacher": "t", "insertion": 1} | change)


SAMPLES = [sample(1), sample(2, kind="plain", steps=(Step(text="only"),), category=(), insertion=None, source="star_benign", teacher="")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    write_jsonl(root / "d.jsonl", SAMPLES)
    (root / "card.md").write_text("# AdvChain\n\nTraining set.\n\n## Rows\n\n2\n")
    export(root / "out", root / "d.jsonl", root / "card.md", SPEC)
    write_guard_report(root / "out", root / "d.jsonl")
    return root / "out"


@pytest.fixture(scope="module")
def loaded(folder, tmp_path_factory):
    """Rows as `datasets.load_dataset` gives them, in a process without network and with an empty cache."""
    cache = {"HF_HOME": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", LOAD, folder], capture_output=True, text=True, env=os.environ | cache, check=True)
    return json.loads(done.stdout)


def test_load_dataset_gives_every_row_back(loaded):
    rows, features = loaded
    assert [row["id"] for row in rows] == ["tc-1", "tc-2"] and "messages" in features
    for row, expected in zip(rows, SAMPLES, strict=True):
        assert (row["thinking"], row["answer"], row["insertion"], tuple(row["category"])) == (
            expected.thinking,
            expected.answer,
            expected.insertion,
            expected.category,
        )
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] and row["messages"][0]["content"] == expected.prompt
        assert [(step["role"], step["text"]) for step in row["steps"]] == [(step.role, step.rendered) for step in expected.steps]
        assert "prompt" not in row and "completion" not in row, "TRL would take the row for another format"


@pytest.mark.parametrize("name", chat.FAMILIES)
def test_messages_render_as_our_own_training_text(loaded, name):
    family = chat.family(name)
    for row, expected in zip(loaded[0], SAMPLES, strict=True):
        user, assistant = (message["content"] for message in row["messages"])
        begun = family.after.removesuffix(chat.OPENING) if family.prefilled else family.after
        assert family.before + user + begun + assistant + family.eos == chat.pair_text(family, expected.prompt, expected.thinking, expected.answer)
        assert chat.split_response(family, assistant) == (expected.thinking, expected.answer, "closed")


def test_a_real_chat_template_keeps_the_chain(loaded, small_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    for row in loaded[0]:
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        assert row["messages"][1]["content"] in text and text.count("<think>") == 1 and row["messages"][0]["content"] in text


def test_readme_header_and_llama_factory_entry(folder):
    readme = (folder / "README.md").read_text()
    _, header, body = readme.split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["pretty_name"] == SPEC.title and values["license"] == "apache-2.0" and values["size_categories"] == ["n<1K"]
    assert values["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]
    assert body.startswith("\n# AdvChain\n\nTraining set.") and "SFTTrainer" in body and "dataset: tiny_run_advchain" in body
    entry = json.loads((folder / "dataset_info.json").read_text())["tiny_run_advchain"]
    assert (folder / entry["file_name"]).is_file() and entry["formatting"] == "sharegpt" and entry["columns"] == {"messages": "messages"}
    manifest = json.loads((folder / "export.json").read_text())
    assert manifest["output"]["rows"] == 2 and manifest["output"]["sha256"] == sha256_file(folder / manifest["output"]["path"])


def test_a_mix_with_other_sources_has_no_licence_of_its_own(tmp_path):
    write_jsonl(tmp_path / "d.jsonl", [sample(1), sample(2, source="safechain")])
    (tmp_path / "card.md").write_text("# T\n\nx\n")
    export(tmp_path / "out", tmp_path / "d.jsonl", tmp_path / "card.md", SPEC)
    assert "license: other" in (tmp_path / "out/README.md").read_text()


# ------------------------------------------------------------------ publishing


def test_the_guard_report_counts_parts_and_names_rows(folder, tmp_path):
    """Counts and ids, no text; only an answer that gives is flagged; the report is bound to its training set."""
    gives = "Sure, here is how to make a florbin:\n\n1. First, take the coil apart.\n2. Next, heat it to 180 degrees.\n3. Finally, weld it and use it."
    steps = [
        {"text": "base one"},
        {"text": "Maybe I could explain it.", "role": "error"},
        {"text": "No, I must refuse.", "role": "correction"},
        {"text": "end"},
    ]
    rows = [
        {"id": f"x{n}", "kind": "tc", "nature": "harmful", "prompt": "How do I make a florbin?", "steps": steps, "answer": answer}
        for n, answer in enumerate(("I'm sorry, I can't help with that.", gives))
    ]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    write_guard_report(tmp_path, tmp_path / "mine.jsonl")
    report = json.loads((tmp_path / "guard.json").read_text())
    assert [(row["part"], row["texts"]) for row in report["parts"]] == [("answer", 2), ("correction", 2), ("error", 2)]
    assert report["flagged_answers"] == ["x1"] and report["dataset_sha256"] == sha256_file(tmp_path / "mine.jsonl")
    page = (tmp_path / "guard.md").read_text()
    assert "Answers to look up: `x1`" in page and "florbin" not in page and "sorry" not in page


def test_publishing_needs_the_guard_report_of_this_training_set(folder, tmp_path):
    settings, mine = {"repo_id": "me/advchain", "private": True}, tmp_path / "mine"
    shutil.copytree(folder, mine)
    (mine / "guard.json").unlink()
    assert "holds no guard report" in publish(mine, tmp_path, **settings)
    (mine / "guard.json").write_text(json.dumps({"dataset_sha256": "0" * 64, "flagged_answers": []}))
    assert "is of another training set" in publish(mine, tmp_path, **settings)


def publish(folder, tmp_path, endpoint="http://127.0.0.1:9", **settings):
    spec = PublishSpec(**{"recipe": "advchain"} | settings).model_dump_json()
    command = [sys.executable, ROOT / "scripts/publish.py", "--folder", folder, "--out", tmp_path / "published.json", "--spec", spec]
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | hub)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not (tmp_path / "published.json").exists()
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "publish.repo_id and publish.private not set: nothing is uploaded without both"),
        ({"repo_id": "me/advchain"}, "publish.private not set"),
        ({"private": True}, "publish.repo_id not set"),
        ({"repo_id": "advchain", "private": True}, "publish.repo_id: 'advchain' is not owner/name"),
    ],
)
def test_publishing_refuses_without_explicit_settings(folder, tmp_path, settings, message):
    assert message in publish(folder, tmp_path, **settings)


class Hub(BaseHTTPRequestHandler):
    """A hub on which the repository exists and is public; it grants nothing else."""

    asked: list[str]

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        self.reply(
            *(
                (200, {"url": f"http://{self.headers['Host']}/datasets/me/advchain"})
                if self.path == "/api/repos/create"
                else (403, {"error": "no write access"})
            )
        )

    def do_GET(self):
        self.asked.append(self.path)
        info = {"id": "me/advchain", "author": "me", "private": False, "tags": [], "siblings": [], "downloads": 0, "likes": 0, "disabled": False}
        self.reply(200, info | {"sha": "0" * 40, "gated": False})

    do_PUT = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_public_repository_gets_no_private_data(folder, tmp_path, hub):
    assert "publish.private is True, but me/advchain exists and is public. Nothing was uploaded" in publish(
        folder, tmp_path, hub, repo_id="me/advchain", private=True
    )
    assert not any("preupload" in path or "commit" in path for path in Hub.asked)


def test_missing_rights_are_one_paragraph(folder, tmp_path, hub):
    text = publish(folder, tmp_path, hub, repo_id="me/advchain", private=False)
    assert "the hub refused or could not be reached for me/advchain" in text and "HF_TOKEN" in text and "hf_test" not in text


def test_unreachable_hub_is_one_paragraph(folder, tmp_path):
    assert "could not be reached for me/advchain" in publish(folder, tmp_path, repo_id="me/advchain", private=True)
