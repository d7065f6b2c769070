"""Several writes as one statement: one round trip, one plan, and locks held no longer than that takes.

    writes = Writes()
    messages.insert(writes, new)
    timeline.add(writes, happenings)
    await writes.execute(connection)

Each part is a statement of its own over columns (`unnest`), numbered from $1. All of them see the database as it was
before, so no part may read what another writes, and none may write a row that another writes. Parts that belong
together row by row take their columns from one part and are not joined: joins of two lists are nested loops here
(`pool`), and cost the square of their length.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import asyncpg

from switchboard.store.pool import Connection, Pool

_PARAMETER: Final = re.compile(r"\$(\d+)")


class Writes:
    """Parts of one statement, in the order they were added. Empty, it costs nothing."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, str]] = []
        self._columns: list[Any] = []

    def add(self, name: str, sql: str, *columns: Any) -> None:
        """Add a statement under a name that is used once. What it returns later parts may join, by that name."""
        self._parts.append((name, sql))
        self._columns += columns

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self._parts)

    async def execute(self, connection: "Connection | Pool", returning: str = "") -> list[asyncpg.Record]:
        """Run what was added. Returns the rows of the part named `returning`. Raises what the database raises."""
        if not self._parts:
            return []
        rows: list[asyncpg.Record] = await connection.fetch(_compose(tuple(self._parts), returning), *self._columns)
        return rows


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The columns of rows, as `unnest` wants them. There is at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


@lru_cache(maxsize=256)
def _compose(parts: tuple[tuple[str, str], ...], returning: str) -> str:
    offset, composed = 0, []
    for name, sql in parts:
        numbers = [int(number) for number in _PARAMETER.findall(sql)]
        shifted = _PARAMETER.sub(lambda found, by=offset: f"${int(found[1]) + by}", sql)  # type: ignore[misc]
        composed.append(f"{name} AS ({shifted})")
        offset += max(numbers, default=0)
    last = f"SELECT * FROM {returning}" if returning else "SELECT WHERE false"
    return f"WITH {', '.join(composed)} {last}"
