"""Run a candidate program as __main__ on the given stdin. Arguments: limits, fd of the code, fd to report readiness on.

Exit codes: 0 done, 1 exception, 77 out of memory; anything else is the program's own or a signal.
"""

from __future__ import annotations

import os
import sys
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import limits  # type: ignore[import-not-found]


def main() -> None:
    """Load, report ready, run."""
    limits.apply()
    with open(int(sys.argv[2]), encoding="utf-8") as file:
        code = file.read()
    os.write(int(sys.argv[3]), b"ready\n")
    os.close(int(sys.argv[3]))
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv[:] = ["program.py"]
    try:
        exec(compile(code, "program.py", "exec"), module.__dict__)
        sys.stdout.flush()
    except MemoryError:
        os._exit(77)


main()
