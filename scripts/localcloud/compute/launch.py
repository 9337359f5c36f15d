"""What an execution environment's process runs: sets up imports as Lambda does, then AWS's runtime client.

Started as ``python -I -S launch.py PARENT_PID HANDLER PATH...`` with the environment variables of the function.
``-I -S`` keeps out the site-packages of the interpreter and every ``PYTHON*`` variable, so the function finds
only ``PATH...`` and the standard library. Standard library imports only: everything else would be visible to
the function's code.
"""

from __future__ import annotations

import contextlib
import resource
import runpy
import sys
from pathlib import Path

FILE_DESCRIPTORS = 1024  # Lambda quota "File descriptors"


def main() -> None:
    parent_pid, handler, *paths = sys.argv[1:]
    runpy.run_path(str(Path(__file__).parent.parent / "tether.py"))["die_with"](int(parent_pid))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(FILE_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.suppress(OSError):  # if the machine itself runs out of memory, a function goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    sys.path[:0] = paths
    # The names Lambda's own process shows to the code: nothing of this launcher stays in sys.argv.
    sys.argv = ["bootstrap", handler]
    from awslambdaric.__main__ import main as run

    run(sys.argv)


if __name__ == "__main__":
    main()
