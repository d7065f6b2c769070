"""Looking at processes that are not our children."""

from __future__ import annotations

import os
from pathlib import Path


def is_gone(pid: int) -> bool:
    """Whether no process runs under this id. One that ended and waits to be reaped is gone too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        facts = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # gone meanwhile, or a system without /proc, where the first answer has to do
        return Path("/proc/self/stat").exists()
    return facts.rpartition(")")[2].split()[0] in ("Z", "X")
