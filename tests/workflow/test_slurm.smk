# Jobs that ask of SLURM what the rules ask of it, in seconds instead of hours: run by test_slurm.py through profiles/slurm.
import os
import sys
from pathlib import Path

from advchain import cli

ROOT = Path(os.environ["ADVCHAIN_ROOT"])
cli.put_on_path(ROOT)
if workflow.remote_exec:
    os.environ["ADVCHAIN_GPUS_GIVEN"] = "1"
shell.prefix("set -euo pipefail; trap '' TERM; ")
SEEN = "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
WAIT = "(trap - TERM; sleep 300)"  # ends at once when SLURM wants it to


rule all:
    input:
        expand("card{n}", n=range(8)),
        "node",
        "slow",
        "again",
        "two/out/model.json",
        "kept/out/model.json",
        "urgent",


rule base:
    output:
        "base/model.json",
    localrule: True
    shell:
        "rmdir base; {sys.executable} -c 'from pathlib import Path; from tiny_training import make_model; make_model(Path(\"base\"))'"


# Eight at a time: each waits for the others, so that all hold their card at once.
rule card:
    output:
        "card{n}",
    resources:
        gpu=1,
        mem_mb=100,
    shell:
        "gpurun 1 sh -c 'echo {SEEN} > {output}.part; for i in $(seq 600); do [ $(ls card* | wc -l) = 8 ] && break; sleep 0.2; done; mv {output}.part {output}'"


rule node:
    output:
        "node",
    threads: 16
    resources:
        gpu=8,
        mem_mb=100,
    shell:
        "gpurun 8 sh -c 'echo {SEEN} > {output}'"


# No cards: those that ask for all of them do not wait for it.
rule slow:
    output:
        "slow",
    priority: 1
    resources:
        mem_mb=100,
        runtime=lambda wildcards, attempt: attempt,
    shell:
        "if [ {resources.runtime} = 1 ]; then {WAIT}; fi; echo {resources.runtime} > {output}"


rule again:
    output:
        "again",
    priority: 1
    resources:
        mem_mb=100,
    shell:
        "echo $SLURM_JOB_ID >> again.starts; if [ $(wc -l < again.starts) = 1 ]; then {WAIT}; fi; cp again.starts {output}"


# On a partition that others preempt: `urgent`, as soon as this one makes steps. After the other training, for machines with few processors.
rule kept:
    input:
        "base/model.json",
        "two/out/model.json",
    output:
        "kept/out/model.json",
    log:
        "kept/log",
    resources:
        gpu=1,
        slurm_partition="preempt",
        mem_mb=8000,
    params:
        spec=Path("kept.json").read_text(),
    shell:
        "echo $SLURM_JOB_ID >> kept.starts; "
        "gpurun 1 train.py --dataset rows.jsonl --base base --out kept/out --work kept/work --spec {params.spec:q} 2>&1 | tee {log}"


rule steps:
    input:
        "two/out/model.json",
    output:
        "kept.steps",
    localrule: True
    shell:
        "for i in $(seq 1500); do grep -qs 'ready after' kept/log && break; sleep 0.2; done; touch {output}"


rule urgent:
    input:
        "kept.steps",
    output:
        "urgent",
    resources:
        gpu=8,
        slurm_partition="urgent",
        mem_mb=100,
    shell:
        "touch {output}"


# The resources that rules/train.smk gives a training on several nodes.
rule two_nodes:
    input:
        "base/model.json",
    output:
        "two/out/model.json",
    log:
        "two/log",
    threads: 8
    resources:
        gpu=16,
        nodes=2,
        mpi="srun",
        tasks_per_node=8,
        cpus_per_task=1,
        slurm_extra="--gpus-per-node=8",
        mem_mb=8000,
    params:
        spec=Path("spec.json").read_text(),
    shell:
        "gpurun 16 train.py --dataset rows.jsonl --base base --out two/out --work two/work --spec {params.spec:q} --nodes 2 --processes 1 2>&1 | tee {log}"
