"""Ends a child process when its parent is gone, however the parent ended.

A server that is killed with SIGKILL cannot stop its children. The kernel can: the parent-death signal of
prctl(2). It is sent when the *thread* that started the child ends, so a child must be started from a thread
that lives as long as its process.

Runs in two ways, with the standard library only, because it is also used by interpreters that see no other
package: ``die_with`` from within a process, or as a script that becomes another module:
``python tether.py PARENT_PID MODULE [ARGUMENT...]``.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process as soon as ``parent_pid`` is gone; end now if it is gone already.

    Elsewhere than on Linux there is no such signal and the call does nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        os._exit(1)


def main() -> None:
    parent_pid, module = int(sys.argv[1]), sys.argv[2]
    die_with(parent_pid)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
