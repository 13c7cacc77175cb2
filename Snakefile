"""AdvChain: STAR chains in, tables out. `snakemake --cores all` runs config/config.yaml; `--configfile config/paper.yaml` the paper's grid."""

import gc
import json
import os
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.dag import DAG
from snakemake.utils import min_version

from advchain import cli, paths, preflight, versions
from advchain.config import host_memory_mb, load_config
from advchain.deviations import deviations
from advchain.errors import AdvChainError
from advchain.files import expand_variables
from advchain.llm.endpoint import served_in
from advchain.plan import Plan
from advchain.report.terminal import terminal_text
from advchain.reruns import deciding

min_version("9.27")

ROOT = Path(workflow.basedir)

# Jobs call scripts/ by name, under the Python that runs snakemake (or the rule's own environment with --sdm conda).
cli.put_on_path(ROOT)

CONFIG_FILES = list(workflow.config_settings.configfiles) or [
    ROOT / "config" / "config.yaml"
]

# A job of a cluster sees other cards than the machine that planned it: what `auto` meant there goes with it.
PLANNED = (
    json.loads(os.environ.get("ADVCHAIN_PLANNED", "{}")) if workflow.remote_exec else {}
)

try:
    cli.write_privately()
    cli.name_user()
    PLAN = Plan(
        load_config(CONFIG_FILES, dict(workflow.config_settings.config) | PLANNED)
    )
    for where, path in PLAN.local_paths:
        expand_variables(path, where)  # says so when a variable is not set
    if workflow.is_main_process and not workflow.output_settings.dryrun:
        if not preflight.only_looks(sys.argv):
            preflight.begin(Path.cwd())
except AdvChainError as error:
    sys.exit(f"error: {error}")

os.environ.update(
    ADVCHAIN_PLANNED=json.dumps({"gpus": PLAN.gpus, "hardware": PLAN.hardware_name})
)

# A job that a cluster's scheduler started has its GPUs from it; a local job takes them through gpurun's locks, inside an allocation, too.
# Plain `--cores all` would start two 8-GPU jobs at once, or three trainings where memory holds two: bound both on this node.
# `--resources gpu=N mem_mb=M` still wins.
if workflow.remote_exec:
    os.environ.update(ADVCHAIN_GPUS_GIVEN="1")
else:
    workflow.global_resources.setdefault("gpu", PLAN.gpus)
    workflow.global_resources.setdefault("mem_mb", host_memory_mb())

# SIGTERM (preemption, a time limit) is for the program: it keeps what it has and ends. The shell and tee around it wait for that.
shell.prefix("set -euo pipefail; trap '' TERM; ")


include: "rules/reruns.smk"
include: "rules/common.smk"
include: "rules/evaluation_inputs.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/operations.smk"


# Seconds of work, one for each of hundreds of files, or downloads, which compute nodes often cannot reach: done where Snakemake itself runs.
localrules:
    source,
    prompts,
    compared_benchmark,
    mix_dataset,
    dataset_card,
    contamination_table,
    collect_responses,
    view_responses,
    all,
    chains,
    datasets,
    export,
    publish,
    checkpoints,
    doctor,
    estimate,
    verify,
    responses,
    evaluate,
    tables,


rule all:
    default_target: True
    input:
        paths.REPORT,
        paths.SUMMARY,
        paths.EXPLORER,
        [paths.CONTAMINATION] if PLAN.recipes else [],
        expand(paths.DATASET_CARD, recipe=PLAN.recipes),
        # Small and dear: one that was deleted is made again. Weights are neither: who deletes them to save space does not train again.
        get_all(paths.RESPONSES),
        get_all(paths.VERDICTS),


rule chains:
    input:
        expand(paths.CHAINS, chains=PLAN.config.chains),


rule datasets:
    input:
        expand(paths.DATASET_CARD, recipe=PLAN.recipes),
        paths.CONTAMINATION,


rule export:
    input:
        expand(paths.EXPORT, recipe=PLAN.recipes),


rule checkpoints:
    input:
        [get_weights(c) for c in PLAN.checkpoints],


rule responses:
    input:
        get_all(paths.RESPONSES),


rule evaluate:
    input:
        get_all(paths.VERDICTS),


rule tables:
    input:
        paths.REPORT,
        paths.SUMMARY,


# `snakemake model_qwen3-0.6b`, `method_advchain`, `benchmark_xstest`: one part of the grid up to its verdicts, without the tables.
for part, jobs in PARTS.items():

    rule:
        name:
            part
        input:
            jobs,
        localrule: True


STARTED = time.time()


onerror:
    for text in cli.errors_told(Path("results/logs"), STARTED):
        print(f"\n{text}", file=sys.stderr)


onsuccess:
    summary = Path(paths.SUMMARY)
    if summary.is_file() and summary.stat().st_mtime >= STARTED:
        print(terminal_text(summary), file=sys.stderr)
