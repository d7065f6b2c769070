"""`switchboard verify`: holds the tables of a live installation against what must never be found there."""

from __future__ import annotations

from pathlib import Path

from switchboard.store.verify import CHECKS, MOST_TOLD, verify
from switchboard_standalone.reach import Reach, home_of


async def look(data: Path | None, settle_seconds: float) -> int:
    """Tell everything that is wrong, one line each. Returns 1 if something is."""
    async with Reach.of(home_of(data)).pool() as pool, pool.acquire() as connection:
        found = await verify(connection, settle_seconds=settle_seconds)
    for finding in found:
        print(f"{finding.check}: {finding.subject}: {finding.what}")
    told = f"{len(found)} findings" if found else "nothing is wrong"
    more = f" (at most {MOST_TOLD} of each kind are told)" if found else ""
    print(f"{len(CHECKS)} checks, {told}{more}")
    return 1 if found else 0
