"""I6: memory, connections and lag return to where they were. Looks at processes from outside (Linux)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct
from tests.faults.system import SERVICES, Lag, System

_KB: Final = 1024
#: What caches and fragmentation may add to what a process needs at rest.
_MORE_BYTES: Final = 64 * _KB * _KB
#: Connections that stay open for a while after a burst. One leaked by each call is far more.
_MORE_DESCRIPTORS: Final = 128


class Footprint(Struct, frozen=True):
    """What a process holds."""

    resident_bytes: int
    descriptors: int


async def footprints(system: System) -> Mapping[str, Footprint]:
    """What each service's process holds now."""
    return {name: _of(pid) for name, pid in system.pids.items() if name in SERVICES}


def _of(pid: int) -> Footprint:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]
    return Footprint(int(resident) * _KB, len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def assert_back(system: System, before: Mapping[str, Footprint]) -> None:
    """Raise AssertionError naming the service that kept more than it had, or the group that is behind."""
    for name, now in (await footprints(system)).items():
        print(f"{name}: {before[name]} before, {now} after", flush=True)
        most = before[name].resident_bytes + _MORE_BYTES
        assert now.resident_bytes <= most, f"I6 {name}: {now} after, {before[name]} before"
        assert now.descriptors <= before[name].descriptors + _MORE_DESCRIPTORS, f"I6 {name}: {now}, {before[name]}"
    running = system.installed.running
    async with Lag(running.kafka, running.topic_prefix) as lag:
        behind = {group: number for group, number in (await lag.by_group()).items() if number}
    assert not behind, f"I6 behind: {behind}"
