"""Several writes as one statement: one round trip, one plan, and locks held no longer than that takes.

    writes = Writes()
    messages.insert(writes, new)
    timeline.add(writes, happenings)
    await writes.execute(connection)

Each part is a statement of its own over columns (`unnest`), numbered from $1. All of them see the database as it was
before, so no part may read what another writes, and none may write a row that another writes. Parts that belong
together row by row take their columns from one part and are not joined: joins of two lists are nested loops here
(`pool`), and cost the square of their length.

A statement may hold for what was seen before it, without a transaction around it:

    writes.require("held", rows=len(new))
    await writes.execute_or_nothing(connection)
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import asyncpg

from switchboard.store.pool import Connection, Pool

_PARAMETER: Final = re.compile(r"\$(\d+)")
#: What the database's function `require` raises.
_UNMET: Final = "SB001"


class Unmet(Exception):
    """A required part did not find its rows: nothing was written."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} did not find its rows")
        self.part = part


class Writes:
    """Parts of one statement, in the order they were added. Empty, it costs nothing."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, str]] = []
        self._columns: list[Any] = []
        self._required: list[tuple[str, int]] = []

    def add(self, name: str, sql: str, *columns: Any) -> None:
        """Add a statement under a name that is used once. What it returns later parts may join, by that name."""
        self._parts.append((name, sql))
        self._columns += columns

    def require(self, name: str, *, rows: int) -> None:
        """Let `execute_or_nothing` write only if this part, a SELECT, finds so many rows.

        Required parts run, and take their locks, in the order they were required and before anything is written.
        """
        self._required.append((name, rows))

    def copy(self) -> "Writes":
        """The same parts, to which others may be added."""
        copied = Writes()
        copied._parts, copied._columns, copied._required = self._parts[:], self._columns[:], self._required[:]
        return copied

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self._parts)

    async def execute(self, connection: "Connection | Pool", returning: str = "") -> list[asyncpg.Record]:
        """Run what was added. Returns the rows of the part named `returning`. Raises what the database raises."""
        if not self._parts:
            return []
        rows: list[asyncpg.Record] = await connection.fetch(_compose(tuple(self._parts), returning), *self._columns)
        return rows

    async def execute_or_nothing(self, connection: Connection) -> int:
        """Run what was added as one statement that writes everything or nothing.

        Returns the version (`xmin`) of all rows it wrote. Raises Unmet, and what the database raises.
        """
        statement = _compose(tuple(self._parts), "", tuple(name for name, _ in self._required))
        try:
            version: int = await connection.fetchval(statement, *self._columns, *(rows for _, rows in self._required))
        except asyncpg.PostgresError as error:
            if error.sqlstate == _UNMET:
                raise Unmet(str(error)) from error
            raise
        return version


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The columns of rows, as `unnest` wants them. There is at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


@lru_cache(maxsize=256)
def _compose(parts: tuple[tuple[str, str], ...], returning: str, required: tuple[str, ...] | None = None) -> str:
    offset, composed = 0, []
    for name, sql in parts:
        numbers = [int(number) for number in _PARAMETER.findall(sql)]
        shifted = _PARAMETER.sub(lambda found, by=offset: f"${int(found[1]) + by}", sql)  # type: ignore[misc]
        composed.append(f"{name} AS ({shifted})")
        offset += max(numbers, default=0)
    if required is not None:
        last = f"SELECT pg_current_xact_id()::xid WHERE {_all_of(required, offset)}"
    else:
        last = f"SELECT * FROM {returning}" if returning else "SELECT WHERE false"
    return f"WITH {', '.join(composed)} {last}" if composed else last


def _all_of(required: tuple[str, ...], offset: int) -> str:
    """A condition that asks one part after the other: AND promises no order, CASE does."""
    condition = "true"
    for number, name in reversed(list(enumerate(required, offset + 1))):
        met = f"switchboard.require('{name}', (SELECT count(*) FROM {name}), ${number})"
        condition = f"CASE WHEN {met} THEN {condition} END"
    return condition
