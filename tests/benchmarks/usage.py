"""What processes cost, as the operating system counts it: user and system time, children included, and memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PROC: Final = Path("/proc")


class Usage(Struct, frozen=True):
    """Of one process and all its children."""

    #: User and system time since they began. The kernel counts in ticks of 10 ms: measure seconds, not moments.
    cpu_seconds: float
    memory_bytes: int


def usage_of(pid: int) -> Usage:
    """What a process and its living and reaped children have used. Nothing, if it is gone."""
    families: dict[int, list[int]] = {}
    facts: dict[int, tuple[int, int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (found := _facts(entry)) is not None:
            parent, ticks, pages = found
            facts[int(entry.name)] = ticks, pages
            families.setdefault(parent, []).append(int(entry.name))
    ticks = pages = 0
    left = [pid]
    while left:
        member = left.pop()
        left += families.get(member, [])
        spent, held = facts.get(member, (0, 0))
        ticks, pages = ticks + spent, pages + held
    return Usage(ticks / _TICKS_PER_SECOND, pages * _PAGE_BYTES)


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """CPU-seconds that each of these used between two looks."""
    return {name: after[name].cpu_seconds - before[name].cpu_seconds for name in before if name in after}


def _facts(entry: Path) -> tuple[int, int, int] | None:
    """Parent, ticks with those of reaped children, and resident pages."""
    try:
        words = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # gone meanwhile
    return int(words[1]), sum(map(int, words[11:15])), int(words[21])
