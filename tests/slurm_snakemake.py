"""Snakemake that looks after its SLURM jobs twice a second: the plugin, made for jobs of hours, waits 40 s, and 10 s longer each time none has ended."""

from __future__ import annotations

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def look_soon(executor: RemoteExecutor) -> None:
    await asyncio.sleep(0.5)


RemoteExecutor.sleep = look_soon

if __name__ == "__main__":
    main()
