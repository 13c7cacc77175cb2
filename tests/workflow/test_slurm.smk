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


rule all:
    input:
        expand("card{n}", n=range(8)),
        "node",
        "slow",
        "again",
        "two/out/model.json",


# Eight at a time: each waits for the others, so that all hold their card at once.
rule card:
    output:
        "card{n}",
    resources:
        gpu=1,
        mem_mb=100,
    shell:
        "gpurun 1 sh -c 'echo {SEEN} > {output}.part; for i in $(seq 600); do [ $(ls card?.part | wc -l) = 8 ] && break; sleep 0.2; done; "
        "sleep 2; mv {output}.part {output}'"


rule node:
    output:
        "node",
    threads: 16
    resources:
        gpu=8,
        mem_mb=100,
    shell:
        "gpurun 8 sh -c 'echo {SEEN} > {output}'"


rule slow:
    output:
        "slow",
    resources:
        gpu=1,
        mem_mb=100,
        runtime=lambda wildcards, attempt: attempt,
    shell:
        "if [ {resources.runtime} = 1 ]; then sleep 300; fi; echo {resources.runtime} > {output}"


rule again:
    output:
        "again",
    resources:
        gpu=1,
        mem_mb=100,
    shell:
        "echo $SLURM_JOB_ID >> again.starts; if [ $(wc -l < again.starts) = 1 ]; then sleep 300; fi; cp again.starts {output}"


# The resources that rules/train.smk gives a training on several nodes.
rule two_nodes:
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
