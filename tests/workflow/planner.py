"""Snakemake's own planner and scheduler in this process: what would run, and a results folder that is finished without any work.

Importing Snakemake costs a second and each `snakemake -n` pays it anew; here a plan of a small config takes a fraction of one. Nothing of the planning is
replaced: the same Snakefile, profile triggers and metadata. Only a finished job is: `hollow` writes a line into each of its declared outputs.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import ExecutionSettings, SchedulingSettings, SnakemakeApi
from snakemake.scheduling.greedy import SchedulerSettings
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from snakemake_interface_executor_plugins.settings import CommonSettings

ROOT = Path(__file__).resolve().parents[2]


class Executor(RealExecutor):
    """Finishes every job at once, with outputs of one line each."""

    def run_job(self, job: Any) -> None:
        info = SubmittedJobInfo(job=job)
        self.report_job_submission(info)
        for path in map(Path, job.products(include_logfiles=False)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path}\n")
        self.report_job_success(info)

    def printjob(self, job: Any) -> None:
        """Say nothing."""

    @property
    def cores(self) -> int:
        return 2

    def cancel(self) -> None:
        """Nothing runs."""

    def shutdown(self) -> None:
        """Nothing runs."""

    def get_exec_mode(self) -> Any:
        raise NotImplementedError

    def get_python_executable(self) -> str:
        raise NotImplementedError


common_settings = CommonSettings(
    non_local_exec=False,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)


@dataclass(frozen=True)
class Planned:
    """The jobs of a plan: rule -> number, and (rule, wildcards) of each."""

    rules: Counter[str]
    jobs: frozenset[tuple[str, str]]


def by_kind(rules: Counter[str]) -> Counter[str]:
    """The same with all rules of judging, one per set of evaluations that are judged together, as one."""
    found: Counter[str] = Counter()
    for rule, num in rules.items():
        found["judge" if rule.startswith("judge_") else rule] += num
    return found


def run(folder: Path, configs: Sequence[Path], targets: Sequence[str] = (), *, dry: bool = True, overrides: Mapping[str, Any] | None = None) -> Planned:
    """Plan, or with `dry=False` finish hollowly, what `snakemake --configfile <configs> <targets>` would run in `folder`; what did run is returned as well."""
    ExecutorPluginRegistry().register_plugin("hollow", sys.modules[__name__])
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {Quietness.RULES, Quietness.PROGRESS} if dry else {Quietness.ALL}  # the first is `-n -q`, which does not go through the jobs once more
    with SnakemakeApi(OutputSettings(quiet=quiet, show_failed_logs=False)) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2, resources={"gpu": 8, "mem_mb": 10**9}),
            config_settings=ConfigSettings(configfiles=list(configs), config=dict(overrides or {})),
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )
        dag = workflow.dag(DAGSettings(targets=frozenset(targets), force_incomplete=True))
        found: list[tuple[str, str]] = []
        inner = workflow._workflow
        execute = inner._build_dag

        def build() -> None:
            execute()
            found.extend((job.rule.name, " ".join(f"{k}={v}" for k, v in sorted(job.wildcards_dict.items()))) for job in inner.dag.needrun_jobs())

        inner._build_dag = build
        dag.execute_workflow(
            executor="local" if dry else "hollow",
            pseudo_executor="dryrun" if dry else None,
            execution_settings=ExecutionSettings(no_hooks=True, latency_wait=0),
            scheduling_settings=SchedulingSettings(scheduler="greedy"),
            scheduler_settings=SchedulerSettings(),
        )
    return Planned(Counter(rule for rule, _ in found), frozenset(found))


def changed(path: Path, base: Path, changes: Mapping[str, Any]) -> Path:
    """Write a config that extends `base` by `changes`."""
    path.write_text(yaml.safe_dump({"extends": str(base)} | dict(changes)))
    return path
