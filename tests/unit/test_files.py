"""Finding pinned files: shipped, local, GitHub and hub, each reached over loopback or not at all."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from advchain.errors import AccessError, ConfigError, DataError, StorageError
from advchain.files import Pin, expand_variables, git_blob, locate
from advchain.rows import read_rows

ROOT = Path(__file__).resolve().parents[2]
BODY = b'{"prompt": "hello"}\n'
SHA = hashlib.sha256(BODY).hexdigest()
COMMIT = "1" * 40


class Server(BaseHTTPRequestHandler):
    """A GitHub or a hub on loopback that holds one file, a gated repository, and nothing else."""

    def do_HEAD(self):
        self.reply(body=False)

    def do_GET(self):
        self.reply(body=True)

    def reply(self, body):
        self.server.asked.append(f"{self.command} {self.path}")
        if "/gated/" in self.path:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
            return
        self.send_response(200 if self.path.endswith("/data/a.jsonl") else 404)
        if "/missing/" in self.path:
            self.send_header("X-Error-Code", "RepoNotFound")
        if self.path.endswith("/data/a.jsonl"):
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{SHA}"')
            self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if body and self.path.endswith("/data/a.jsonl"):
            self.wfile.write(self.server.body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.asked, server.body = [], BODY
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def one_paragraph(error):
    text = str(error.value) if hasattr(error, "value") else error
    assert "\n" not in text and len(text) < 900, text
    return text


# ------------------------------------------------------------------ sample and local


def test_sample_is_found_in_the_package(tmp_path):
    assert locate("sample", "star1", None, None, "star1.jsonl", tmp_path).is_file()


def test_no_sample_names_the_alternatives(tmp_path):
    with pytest.raises(ConfigError, match=r"x: no sample is shipped.*from: hub.*from: local"):
        locate("sample", "x", None, None, None, tmp_path)


def test_local_expands_variables(tmp_path, monkeypatch):
    (tmp_path / "a b.jsonl").write_bytes(BODY)
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    for path in ("${MY_DATA}/a b.jsonl", "$MY_DATA/a b.jsonl", str(tmp_path / "a b.jsonl")):
        assert locate("local", "x", None, path, None, tmp_path).read_bytes() == BODY
    monkeypatch.chdir(tmp_path)
    assert locate("local", "x", None, "a b.jsonl", None, tmp_path).read_bytes() == BODY


def test_unset_variable_is_named(tmp_path, monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("NO_SUCH_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("NO_SUCH_DATA", value)
        with pytest.raises(ConfigError, match="environment variable NO_SUCH_DATA") as error:
            expand_variables("${NO_SUCH_DATA}/x", "sources.star1")
        one_paragraph(error)


@pytest.mark.parametrize(
    ("path", "kind", "message"), [("nope.json", StorageError, "no file nope.json"), (".", DataError, "is a folder"), (None, ConfigError, "needs a `path:`")]
)
def test_bad_local_paths(tmp_path, monkeypatch, path, kind, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message) as error:
        locate("local", "x", None, path, None, tmp_path)
    one_paragraph(error)


def test_no_pin_for_hub(tmp_path):
    with pytest.raises(ConfigError, match="from: local"):
        locate("hub", "x", None, None, None, tmp_path)


# ------------------------------------------------------------------ GitHub


def github_pin(**change):
    return Pin(**{"kind": "github", "repo": "o/r", "revision": COMMIT, "path": "data/a.jsonl", "sha256": SHA} | change)


def test_github_fetches_once_checks_and_keeps(tmp_path, monkeypatch, server):
    monkeypatch.setenv("ADVCHAIN_GITHUB", server.url)
    first = locate("hub", "x", github_pin(), None, None, tmp_path)
    assert first.read_bytes() == BODY and first.is_relative_to(tmp_path)
    assert locate("hub", "x", github_pin(), None, None, tmp_path) == first
    assert server.asked == [f"GET /o/r/{COMMIT}/data/a.jsonl"]


def test_github_damaged_copy_is_fetched_again(tmp_path, monkeypatch, server):
    monkeypatch.setenv("ADVCHAIN_GITHUB", server.url)
    path = locate("hub", "x", github_pin(), None, None, tmp_path)
    path.write_bytes(BODY[:-3])
    assert locate("hub", "x", github_pin(), None, None, tmp_path).read_bytes() == BODY


def test_github_changed_upstream_stops(tmp_path, monkeypatch, server):
    monkeypatch.setenv("ADVCHAIN_GITHUB", server.url)
    for pin in (github_pin(sha256="0" * 64), github_pin(sha256=None, blob="0" * 40)):
        with pytest.raises(DataError, match=r"is not the pinned file of github:o/r@1+:data/a\.jsonl.*expected 0+") as error:
            locate("hub", "x", pin, None, None, tmp_path)
        one_paragraph(error)


def test_github_without_hash_logs_what_was_observed(tmp_path, monkeypatch, server, caplog):
    monkeypatch.setenv("ADVCHAIN_GITHUB", server.url)
    caplog.set_level("INFO")
    locate("hub", "x", github_pin(sha256=None), None, None, tmp_path)
    assert SHA in caplog.text


def test_git_blob_is_gits_own_id(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(BODY)
    expected = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    assert git_blob(path) == expected


def test_github_out_of_reach(tmp_path, monkeypatch, server, closed_port):
    start = time.monotonic()
    for base, pin, reason in [
        (server.url, github_pin(path="other"), "HTTP 404"),
        (f"http://127.0.0.1:{closed_port}", github_pin(), "refused"),
        ("nonsense", github_pin(), "unknown url"),
    ]:
        monkeypatch.setenv("ADVCHAIN_GITHUB", base)
        with pytest.raises(AccessError, match=reason) as error:
            locate("hub", "sources.star1", pin, None, None, tmp_path / reason)
        text = one_paragraph(error)
        assert "https://github.com/o/r" in text and "from: local" in text
    assert time.monotonic() - start < 20  # nobody waits for an address that is not there


# ------------------------------------------------------------------ the hub, whose client reads its settings at import: own processes

LOCATE = """
import sys
from pathlib import Path
from advchain.errors import AdvChainError
from advchain.files import Pin, locate
try:
    print(locate("hub", "benchmark x", Pin(sys.argv[1], sys.argv[2], sys.argv[3], sha256=sys.argv[4] or None, gated=True), None, None, Path(".")))
except AdvChainError as error:
    print(type(error).__name__, error)
"""


def from_hub(home, endpoint, repo="o/r", revision=COMMIT, path="data/a.jsonl", sha=SHA, **settings):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"} | settings
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", LOCATE, repo, revision, path, sha], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.strip(), time.monotonic() - start


def test_hub_download_check_and_offline_reuse(tmp_path, server):
    path, _ = from_hub(tmp_path, server.url)
    assert Path(path).read_bytes() == BODY
    asked = len(server.asked)
    assert from_hub(tmp_path, server.url)[0] == path
    assert len(server.asked) == asked, "a cached commit needs no network"
    assert from_hub(tmp_path, server.url, HF_HUB_OFFLINE="1")[0] == path
    text, _ = from_hub(tmp_path, server.url, sha="0" * 64)
    assert text.startswith("DataError") and "expected 000" in text


def test_hub_branch_uses_the_cache_when_unreachable(tmp_path, server, closed_port):
    path, _ = from_hub(tmp_path, server.url, revision="main", sha="")
    assert from_hub(tmp_path, f"http://127.0.0.1:{closed_port}", revision="main", sha="")[0] == path


def test_hub_out_of_reach_is_one_paragraph_and_fast(tmp_path, closed_port):
    text, seconds = from_hub(tmp_path, f"http://127.0.0.1:{closed_port}")
    assert seconds < 15, "the hub client's own retries would take longer"
    assert text.startswith("AccessError benchmark x: cannot fetch hub:o/r@")
    for word in ("https://huggingface.co/datasets/o/r", "HF_TOKEN", "from: local"):
        assert word in one_paragraph(text)
    offline, _ = from_hub(tmp_path, f"http://127.0.0.1:{closed_port}", HF_HUB_OFFLINE="1")
    assert offline.startswith("AccessError") and "\n" not in offline


@pytest.mark.parametrize(
    ("repo", "path", "words"),
    [("gated/r", "a", ("gated", "Accept its terms at", "HF_TOKEN", "from: local")), ("missing/r", "a", ("HF_TOKEN",)), ("o/r", "other", ("cannot fetch",))],
)
def test_hub_gated_missing_and_moved(tmp_path, server, repo, path, words):
    text, seconds = from_hub(tmp_path, server.url, repo=repo, path=path)
    assert text.startswith("AccessError") and seconds < 15
    assert all(word in one_paragraph(text) for word in words), text


def test_script_prints_one_paragraph_without_traceback(tmp_path, closed_port):
    spec = '{"version": 1, "name": "wj", "benchmark": "wildjailbreak_harmful", "origin": "hub"}'
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port}", "HF_HOME": str(tmp_path)}
    command = [sys.executable, ROOT / "scripts/prompts.py", "--out", tmp_path / "p.jsonl", "--downloads", tmp_path, "--spec", spec]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "gated" in done.stderr and "allenai/wildjailbreak" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "p.jsonl").exists()


def test_every_pin_is_sound():
    import importlib

    from advchain.catalogue import modules

    for folder in ("sources", "benchmarks"):
        for name in modules(folder):
            module = importlib.import_module(f"advchain.{folder}.{name}")
            pin = module.PIN
            if pin is None:
                continue
            assert pin.repo.count("/") == 1 and pin.path, name
            assert pin.sha256 is None or len(pin.sha256) == 64
            assert pin.kind == "hub" or len(pin.revision) == 40, f"{name}: GitHub pins are commits"
            if module.SAMPLE:
                assert list(read_rows(locate("sample", name, None, None, module.SAMPLE, ROOT)))
