# `make run`: set up .venv and run the main job. `make test`: set up and test. Nothing else has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all

.PHONY: run estimate test sandbox browser setup lint format schema clean vllm dag bench-data bench-chains bench-teacher bench-engines bench-memory bench-train bench-report bench-guard bench-dag
.DEFAULT_GOAL := run

setup: $(VENV)/.installed

# torch first and by exact version: pip then keeps it instead of the newest CUDA build.
$(VENV)/.installed: envs/laptop.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' envs/laptop.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/laptop.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

run: setup
	$(BIN)/snakemake --cores $(CORES)

# What a config will take before anything runs: make estimate CONFIG=config/paper.yaml
CONFIG ?= config/config.yaml
estimate: setup
	@$(BIN)/python scripts/estimate.py --config $(CONFIG)

# The sandbox tests need bubblewrap; as root on Debian or Ubuntu it is installed here, elsewhere the message says what is missing.
sandbox:
	@command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null; } \
	  || echo "bubblewrap is not installed: the sandbox tests will not pass (apt install bubblewrap)" >&2

# The report and the explorer are opened in headless Chromium; installed like bubblewrap.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "chromium is not installed: the tests of the report will not pass (apt install chromium)" >&2

test: setup lint sandbox browser vllm
	$(BIN)/python -m pytest tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

# Measurements, not tests: each sets itself up and prints one JSON object as its last line.
bench-data: setup
	$(BIN)/python tests/bench/data.py

schema: setup
	$(BIN)/python scripts/schema.py

# The generate role on a CPU, in an environment of its own (vLLM pins another transformers): found by itself once it is there.
vllm: .venv-generate/.installed

.venv-generate/.installed: envs/generate-cpu.txt
	$(PYTHON) -m venv .venv-generate
	.venv-generate/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' envs/generate-cpu.txt)
	.venv-generate/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r envs/generate-cpu.txt
	touch $@

# Time and memory of rewriting 1k, 10k and 100k rows with the embedded teacher; the last line is one JSON object.
bench-chains: setup
	$(BIN)/python tests/bench/chains.py

# The API client against an endpoint in another process, two peers beside it (they get .venv-peers); about five minutes. The last line is one JSON object.
bench-teacher: setup
	$(BIN)/python tests/bench/teacher.py

# Greedy text of both engines beside each other (after `make vllm`); the last line is one JSON object.
bench-engines: setup
	$(BIN)/python tests/bench/engines.py

# Scoring and reporting 1e6 and 1e7 verdict rows, and the pages in headless Chromium; the last line is one JSON object.
bench-report: setup browser
	$(BIN)/python tests/bench/report.py

# The memory model beside measured peaks: on a CPU resident memory, on a GPU what torch allocates; the last line is one JSON object.
bench-memory: setup
	$(BIN)/python tests/bench/memory.py

# Our training loop beside Trainer, TRL and STAR-1's loop on the same rows (they get .venv-train-peers); the last line is one JSON object.
# On a GPU: make bench-train ARGS="--shape qwen3-0.6b" (or qwen3-1.7b, qwen3-4b, r1-1.5b).
bench-train: setup
	$(BIN)/python tests/bench/train.py $(ARGS)

# The guard trained anew from people's labels (ADVCHAIN_DATA), its held-out agreement, its speed; the last line is one JSON object.
bench-guard: setup
	$(BIN)/python tests/bench/guard.py

# Planning time of the paper's grid, of ten times it and of a finished one, and what grows on the way; the last line is one JSON object.
bench-dag: setup
	$(BIN)/python tests/bench/dag.py

dag: setup
	$(BIN)/snakemake --rulegraph mermaid-js --forceall

clean:
	rm -rf results .snakemake
