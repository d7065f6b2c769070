"""A sampling profiler that a service starts with: where its CPU time goes, by line of Python.

Python imports this module by itself at start from a folder on its path. Every millisecond of CPU time it notes the
stack; on SIGUSR2 it forgets, on SIGUSR1 it writes what it has seen to the file `SAMPLES` names, and goes on.
Standard library only: it runs before anything else.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

_SECONDS = 0.001
_stacks: Counter[tuple[str, ...]] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        code = frame.f_code
        stack.append(f"{code.co_filename}:{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    _stacks[tuple(stack)] += 1


def _forget(_: int, __: FrameType | None) -> None:
    _stacks.clear()


def _write(_: int, __: FrameType | None) -> None:
    target = Path(os.environ["SAMPLES"])
    draft = target.with_suffix(".new")
    draft.write_text(json.dumps([[list(stack), count] for stack, count in _stacks.items()]))
    draft.replace(target)


if "SAMPLES" in os.environ:
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, _write)
    signal.signal(signal.SIGUSR2, _forget)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS)
