"""AdvChain: STAR chains in, tables out. `snakemake --cores all` runs config/config.yaml; `--configfile config/paper.yaml` the paper's grid."""

import sys
from pathlib import Path

from snakemake.utils import min_version

from advchain import paths, versions
from advchain.config import load_config
from advchain.errors import AdvChainError
from advchain.plan import Plan

min_version("9.27")

ROOT = Path(workflow.basedir)
PYTHON = sys.executable
SCRIPTS = ROOT / "scripts"
GPURUN = f"{PYTHON} {SCRIPTS / 'gpurun'}"

try:
    PLAN = Plan(
        load_config(
            list(workflow.config_settings.configfiles)
            or [ROOT / "config" / "config.yaml"],
            dict(workflow.config_settings.config),
        )
    )
except AdvChainError as error:
    sys.exit(f"error: {error}")

# Plain `--cores all` would start two 8-GPU jobs at once: bound the GPUs of this node; `--resources gpu=N` still wins.
workflow.global_resources.setdefault("gpu", PLAN.gpus)


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


localrules:
    all,
    chains,
    datasets,
    export,
    publish,
    checkpoints,
    responses,
    verdicts,


rule all:
    default_target: True
    input:
        paths.REPORT,
        paths.SUMMARY,
        paths.CONTAMINATION,
        expand(paths.DATASET_CARD, recipe=PLAN.recipes),


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


rule verdicts:
    input:
        get_all(paths.VERDICTS),


onsuccess:
    if Path(paths.SUMMARY).is_file():
        print(Path(paths.SUMMARY).read_text(encoding="utf-8"), file=sys.stderr)
