"""What a statement of several parts promises, on a real database."""

from collections.abc import AsyncIterator

import pytest

from switchboard.store.pool import Connection, open_pool
from switchboard.store.writes import Unmet, Writes


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    pool = await open_pool(database, size=1, service="test")
    async with pool.acquire() as connection:
        await connection.execute("CREATE TABLE berths (name text PRIMARY KEY, ship text)")
        await connection.execute("INSERT INTO berths VALUES ('north', 'Ida'), ('south', 'Eos')")
        yield connection
    await pool.close()


def moored(*names: str) -> Writes:
    """A ship moored at a third berth, if nobody has left these two."""
    writes = Writes()
    writes.add("moored", "INSERT INTO berths VALUES ($1, $2)", "east", "Una")
    for part, name in zip(("first", "second"), names, strict=True):
        writes.add(part, "SELECT name FROM berths WHERE name = $1 FOR UPDATE", name)
    return writes


async def berths(connection: Connection) -> dict[str, str]:
    return {row["name"]: row["ship"] for row in await connection.fetch("SELECT * FROM berths")}


async def test_everything_is_written_and_its_version_told_if_all_rows_are_found(connection: Connection) -> None:
    writes = moored("north", "south")
    writes.require("first", rows=1)
    writes.require("second", rows=1)

    version = await writes.execute_or_nothing(connection)

    assert await berths(connection) == {"north": "Ida", "south": "Eos", "east": "Una"}
    assert version == await connection.fetchval("SELECT xmin FROM berths WHERE name = 'east'")


@pytest.mark.parametrize(
    ("names", "required", "missing"),
    [
        (("north", "gone"), ("first", "second"), "second"),
        (("gone", "south"), ("first", "second"), "first"),
        # The first that is required is asked first, wherever it stands.
        (("gone", "gone"), ("first", "second"), "first"),
        (("gone", "gone"), ("second", "first"), "second"),
    ],
)
async def test_nothing_is_written_if_a_required_row_is_not_found(
    connection: Connection, names: tuple[str, str], required: tuple[str, str], missing: str
) -> None:
    writes = moored(*names)
    for part in required:
        writes.require(part, rows=1)

    with pytest.raises(Unmet) as unmet:
        await writes.execute_or_nothing(connection)

    assert unmet.value.part == missing
    assert await berths(connection) == {"north": "Ida", "south": "Eos"}


async def test_what_is_required_is_asked_before_anything_is_written(connection: Connection) -> None:
    await connection.execute("INSERT INTO berths VALUES ('east', 'Ran')")
    writes = moored("gone", "south")
    writes.require("first", rows=1)

    # Written first, there would be two ships at one berth.
    with pytest.raises(Unmet):
        await writes.execute_or_nothing(connection)


async def test_what_is_not_required_may_find_nothing(connection: Connection) -> None:
    writes = moored("gone", "gone")

    await writes.execute_or_nothing(connection)

    assert "east" in await berths(connection)


async def test_a_copy_takes_more_parts_than_its_original(connection: Connection) -> None:
    writes = moored("north", "south")
    copied = writes.copy()
    copied.add("sunk", "DELETE FROM berths WHERE name = $1", "south")
    copied.require("first", rows=2)

    with pytest.raises(Unmet):
        await copied.execute_or_nothing(connection)
    await writes.execute_or_nothing(connection)

    assert await berths(connection) == {"north": "Ida", "south": "Eos", "east": "Una"}
