"""Runs a command that must not outlive the process that started it: `python -m sop_jax.cli.child NICE PARENT COMMAND...`.

Linux ends the command with SIGTERM when its parent dies, however it dies; elsewhere only the parent's own clean-up does.
The process becomes the command (exec), so its pid and exit code are the command's.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    niceness, parent, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if niceness:
        os.nice(niceness)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
