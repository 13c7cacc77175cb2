# `make run`: set up .venv and run the main job. `make test`: set up and test. Nothing else has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all

.PHONY: run estimate test sandbox browser slurm setup lint format schema clean vllm dag bench-data bench-chains bench-teacher bench-generate bench-judges bench-sandbox bench-memory bench-train bench-report bench-guard doctor verify bundle bench-envs bench-gpurun bench-slurm envs bench-dag
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

# Is this machine ready for a config? make doctor CONFIG=config/paper.yaml
doctor: setup
	@$(BIN)/python scripts/doctor.py --config $(CONFIG)

# Are the results what was written, and what the config would write today? It says what to run again.
verify: setup
	@$(BIN)/python scripts/verify.py --config $(CONFIG)

# A finished run as one file: tables, figures, report, manifests, config, versions; no weights, no raw text.
bundle: setup
	@$(BIN)/python scripts/bundle.py --config $(CONFIG)

# The sandbox tests need bubblewrap; as root on Debian or Ubuntu it is installed here, elsewhere the message says what is missing.
sandbox:
	@command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null; } \
	  || echo "bubblewrap is not installed: the sandbox tests will not pass (apt install bubblewrap)" >&2

# The report and the explorer are opened in headless Chromium; installed like bubblewrap.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "chromium is not installed: the tests of the report will not pass (apt install chromium)" >&2

# The tests of the cluster start a SLURM of their own, without root; installed like bubblewrap.
slurm:
	@command -v srun >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq slurm-wlm >/dev/null; } \
	  || echo "SLURM is not installed: the tests of the cluster will not pass (apt install slurm-wlm)" >&2

# Files are dealt to so many processes: most tests wait, for a server, a kill, a second process.
WORKERS ?= 2
test: setup lint sandbox browser slurm vllm
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15

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

# envs/*.yaml from the pins of envs/*.txt, for --sdm conda.
envs: setup
	$(BIN)/python scripts/conda_envs.py

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

# Greedy text and tokens per second of both engines beside each other (after `make vllm`); the last line is one JSON object.
bench-generate: setup
	$(BIN)/python tests/bench/generate.py

# Every judge that needs neither GPU nor key on people's labels (ADVCHAIN_DATA); the last line is one JSON object.
bench-judges: setup
	$(BIN)/python tests/bench/judges.py

# The code sandbox: attacks, published and mutated solutions of HumanEval and MBPP (ADVCHAIN_DATA); the last line is one JSON object.
bench-sandbox: setup sandbox
	$(BIN)/python tests/bench/sandbox.py

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

# 200 one- and eight-GPU jobs at once through gpurun, a quarter of them with a process killed; the last line is one JSON object.
bench-gpurun: setup
	$(BIN)/python tests/bench/gpurun.py

# The workflow on a SLURM of its own, with pretended GPUs; the last line is one JSON object.
bench-slurm: setup slurm
	$(BIN)/python tests/bench/slurm.py

# Planning time of the paper's grid, of ten times it and of a finished one, and what grows on the way; the last line is one JSON object.
bench-dag: setup
	$(BIN)/python tests/bench/dag.py

dag: setup
	$(BIN)/snakemake --rulegraph mermaid-js --forceall

# Each pinned environment from empty, one after another (about 10 GB of disk, ten minutes); the last line is one JSON object.
bench-envs:
	$(PYTHON) tests/bench/envs.py

# Lists what would go; STAGE=train (chains, models, generate, judge, report, work, answers) for a part, YES=1 deletes. Bought answers stay.
STAGE ?= all
clean: setup
	@$(BIN)/python scripts/clean.py $(STAGE) $(if $(YES),--yes)
