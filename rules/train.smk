"""Released models and full fine-tuning through DeepSpeed.

Outputs: results/models/*/ and results/checkpoints/<model>/<method>/<run>/: safetensors, tokenizer, chat template, model.json (digests,
provenance), training.jsonl (one row per optimizer step). A killed training resumes from results/.work/training; one whose data or
settings were changed begins anew. TensorBoard event files are in results/logs/train/<model>/<method>/<run>.
"""

import os

# By the environment and not in a job's parameters: another tracker re-trains nothing.
os.environ.update(ADVCHAIN_TRACKERS=",".join(PLAN.config.train.trackers))


rule fetch_model:
    output:
        model=paths.MODEL,
    log:
        "results/logs/model/{model}.log",
    benchmark:
        "results/benchmarks/model/{model}.tsv"
    conda:
        "../envs/control.yaml"
    resources:
        mem_mb=lambda wildcards: PLAN.model(wildcards.model).memory_gb * 1000,
        runtime=120,
        gpu=0,
    params:
        spec=lambda wildcards: spec_json(PLAN.model_spec(wildcards.model)),
        folder=lambda wildcards, output: str(Path(output.model).parent),
    message:
        "Fetching model {wildcards.model}"
    shell:
        "model.py --out {params.folder} --spec {params.spec:q} 2>&1 | tee {log}"


rule train:
    input:
        dataset=get_dataset,
        base=paths.MODEL,
    output:
        model=paths.CHECKPOINT,
        steps=paths.TRAINING_LOG,
    log:
        f"results/logs/train/{paths.RUN}.log",
    benchmark:
        f"results/benchmarks/train/{paths.RUN}.tsv"
    conda:
        "../envs/train.yaml"
    threads: lambda wildcards: 8 * PLAN.train_choice(wildcards.model).gpus or 1
    resources:
        gpu=get_train_gpus,
        nodes=get_train_nodes,
        # Several nodes: the job is one command, which calls srun itself; else the plugin would, for one task of one node.
        mpi=lambda wildcards: get_if_several_nodes(wildcards, "srun"),
        tasks_per_node=lambda wildcards: get_if_several_nodes(
            wildcards, get_tasks_per_node(wildcards)
        ),
        cpus_per_task=lambda wildcards: get_if_several_nodes(
            wildcards, get_cpus_per_task(wildcards)
        ),
        slurm_extra=lambda wildcards: get_if_several_nodes(
            wildcards,
            f"--gpus-per-node={get_train_gpus(wildcards) // get_train_nodes(wildcards)}",
        ),
        mem_mb=get_train_memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        spec=lambda wildcards: spec_json(PLAN.train_spec(get_checkpoint(wildcards))),
        base=lambda wildcards, input: str(Path(input.base).parent),
        folder=lambda wildcards, output: str(Path(output.model).parent),
        work=paths.TRAINING_WORK,
        logs=f"results/logs/train/{paths.RUN}",
        processes=lambda wildcards: Parameter(get_train_processes(wildcards)),
        hardware=lambda wildcards: Parameter(PLAN.hardware_name),
    message:
        "Training {wildcards.model} on {wildcards.method} ({wildcards.run})"
    shell:
        "gpurun {resources.gpu} train.py --dataset {input.dataset} --base {params.base} --out {params.folder} "
        "--work {params.work} --restart-changed --logs {params.logs} --nodes {resources.nodes} --processes {params.processes} "
        "--threads {threads} --hardware {params.hardware} --spec {params.spec:q} 2>&1 | tee {log}"
