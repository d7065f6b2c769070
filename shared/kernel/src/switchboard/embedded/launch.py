"""Become another program that cannot outlive its parent.

Run as a script by `ChildProcess`, alone and with the standard library only:

    python -I -S launch.py PARENT_PID DEATH_SIGNAL USER COMMAND...

USER is a uid to change to, or "-". The kernel sends DEATH_SIGNAL when the parent dies, however it dies.
A script between the parent and the program instead of `preexec_fn`, which runs Python in a forked copy of a
threaded process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def become(parent_pid: int, death_signal: int, user: str, command: list[str]) -> None:
    """Change the user, tie this process to its parent, then replace it with the command. Does not return."""
    # Looked up as the first user: the second may not be able to read Python's own files.
    tie = _system_call() if sys.platform == "linux" else None
    if user != "-":
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    # Set as the second user: changing the user clears it.
    if tie is not None and tie(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.exit("cannot tie the process to its parent")
    # The parent may have died before the setting: then nobody would send the signal.
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


def _system_call() -> Callable[..., int]:
    import ctypes

    return ctypes.CDLL(None).prctl


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
