"""Set the resource limits of this process and its children; lowering them is final without privileges."""

from __future__ import annotations

import json
import resource
import sys


def apply() -> None:
    """Read {"memory_mb", "cpu_seconds", "file_mb", "processes", "files"} from the first argument and set the limits."""
    wanted = json.loads(sys.argv[1])
    for name, value in (
        (resource.RLIMIT_AS, wanted["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, wanted["file_mb"] << 20),
        (resource.RLIMIT_NPROC, wanted["processes"]),
        (resource.RLIMIT_NOFILE, wanted["files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (wanted["cpu_seconds"], wanted["cpu_seconds"] + 1))
