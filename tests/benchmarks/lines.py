"""What waits in lanes, laid straight into the database: copies of one message that the planner put there.

Sending a hundred thousand messages only to let them wait takes minutes and measures nothing. The rows are what the
router wrote for the first, under ids, recipients and places of their own; that each is submitted and reported once is
checked at the sinks like everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import asyncpg
from msgspec import Struct
from tests.benchmarks.product import SMS, Load, Product

from switchboard.ids import AppId, MessageId
from switchboard.lanes import dispatch_lane
from switchboard.lanes.locked import NOTIFY_CHANNEL
from switchboard.testing import wait_until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_PIECE: Final = 20_000
_RECIPIENT: Final = "convert_to(replace(convert_from(old.{}, 'UTF8'), $6, new.recipient), 'UTF8')"
#: What a copy has of its own, by table and column.
_OWN: Final[Mapping[str, Mapping[str, str]]] = {
    "messages": {
        "id": "new.id",
        "app_id": "new.app_id",
        "identity": "new.recipient",
        "envelope": _RECIPIENT.format("envelope"),
        "route": _RECIPIENT.format("route"),
    },
    "attempts": {"message_id": "new.id", "app_id": "new.app_id", "identity": "new.recipient"},
    "timeline": {"message_id": "new.id"},
    "lane_items": {"message_id": "new.id", "lane": "new.lane", "sequence": "new.sequence"},
}


class Waiting(Struct, frozen=True):
    """A message that waits."""

    message_id: MessageId
    recipient: str
    app_id: AppId


async def lay(running: Product, lines: Mapping[AppId, int]) -> list[Waiting]:
    """Let so many NORMAL messages of each app wait in its lane on SMS. The lanes are paused afterwards."""
    async with running.database() as connection:
        await _pause(connection, running.running.app_id)
        first = await _first(connection, running)
        laid = []
        for app_id, number in lines.items():
            recipients = running.recipients(number)
            laid += [
                # The digits are ULID's as well: the id of the first, counted on.
                Waiting(MessageId(f"{first.message_id[:15]}{int(recipient) % 10**11:011d}"), recipient, app_id)
                for recipient in recipients
            ]
        places = await _places(connection, lines)
        for begin in range(0, len(laid), _PIECE):
            await _copy(connection, first, laid[begin : begin + _PIECE], places)
        await _remove(connection, first)
        await connection.executemany(
            _COUNT_IN, sorted((dispatch_lane(app, SMS), number) for app, number in lines.items())
        )
    return laid


async def let_go(running: Product, app_ids: Sequence[AppId], rates: Mapping[AppId, int] | None = None) -> None:
    """Open the lanes at once, as an operator does, at these messages a second."""
    async with running.database() as connection:
        for app_id, rate in (rates or {}).items():
            await connection.execute(
                "UPDATE lanes SET interval_ns = ceil(1e9 / $2::numeric) WHERE id = $1", dispatch_lane(app_id, SMS), rate
            )
        lanes = [dispatch_lane(app_id, SMS) for app_id in app_ids]
        await connection.execute(_change_lanes("gate = 'open', tat = now()", "id = ANY ($1)"), lanes)
        for lane in lanes:
            await connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, lane)


def _change_lanes(change: str, which: str) -> str:
    """An update of lanes that locks them in the order of their ids, as everybody does."""
    held = f"SELECT id AS held FROM lanes WHERE {which} ORDER BY id FOR UPDATE"
    return f"UPDATE lanes SET {change} FROM ({held}) AS locked WHERE id = held"


async def _pause(connection: Connection, app_id: str) -> None:
    await connection.execute("UPDATE lanes SET gate = 'paused' WHERE id = $1", dispatch_lane(AppId(app_id), SMS))


async def _first(connection: Connection, running: Product) -> Waiting:
    """Send one message and wait until it waits."""
    report = await running.send(Load(messages=1))
    [sent] = report.sent

    async def is_waiting() -> bool:
        found = await connection.fetchval("SELECT count(*) FROM lane_items WHERE message_id = $1", sent.message_id)
        return bool(found)

    await wait_until(is_waiting, 20, "the first message waits")
    return Waiting(MessageId(sent.message_id), str(sent.recipient), AppId(running.running.app_id))


async def stop_all(running: Product) -> None:
    """Pause every lane."""
    async with running.database() as connection:
        await connection.execute(_change_lanes("gate = 'paused'", "kind = 'dispatch'"))


async def clear(running: Product) -> None:
    """Forget every message, so that what still waits is nobody's any more."""
    async with running.database() as connection, connection.transaction():
        await connection.execute(_change_lanes("waiting = 0, in_flight = 0, gate = 'open'", "kind <> 'endpoint'"))
        await connection.execute("TRUNCATE lane_items, attempts, timeline, messages")


async def _places(connection: Connection, apps: Collection[AppId]) -> dict[AppId, int]:
    """The last place given out in each line."""
    rows = await connection.fetch("SELECT id, last_sequence FROM lanes WHERE kind = 'dispatch'")
    last = {row["id"]: row["last_sequence"] for row in rows}
    return {app_id: last.get(dispatch_lane(app_id, SMS), 0) for app_id in apps}


async def _copy(connection: Connection, first: Waiting, copies: Sequence[Waiting], places: dict[AppId, int]) -> None:
    sequences = []
    for copy in copies:
        places[copy.app_id] += 1
        sequences.append(places[copy.app_id])
    values: list[Any] = [
        [copy.message_id for copy in copies],
        [copy.recipient for copy in copies],
        [copy.app_id for copy in copies],
        [dispatch_lane(copy.app_id, SMS) for copy in copies],
        sequences,
    ]
    async with connection.transaction():
        for table, own in _OWN.items():
            columns = await connection.fetch(_COLUMNS, table)
            names = [row["attname"] for row in columns]
            key = "id" if table == "messages" else "message_id"
            await connection.execute(
                f"INSERT INTO {table} ({', '.join(names)})"
                f" SELECT {', '.join(own.get(name, f'old.{name}') for name in names)} FROM {table} AS old,"
                " unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])"
                " AS new (id, recipient, app_id, lane, sequence)"
                f" WHERE $6::text <> '' AND old.{key} = $7",
                *values, first.recipient, first.message_id,
            )  # fmt: skip


async def _remove(connection: Connection, first: Waiting) -> None:
    for table in ("lane_items", "timeline", "attempts"):
        await connection.execute(f"DELETE FROM {table} WHERE message_id = $1", first.message_id)
    await connection.execute("DELETE FROM messages WHERE id = $1", first.message_id)
    await connection.execute("UPDATE lanes SET waiting = waiting - 1 WHERE id = $1", dispatch_lane(first.app_id, SMS))


_COLUMNS: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = '' ORDER BY attnum
"""
#: A lane that nobody has planned for yet is made as the planner makes it.
_COUNT_IN: Final = """
INSERT INTO lanes (id, kind, interval_ns, tat, waiting, max_in_flight, gate, last_sequence)
VALUES ($1, 'dispatch', 10000, now(), $2, 2000, 'paused', $2)
ON CONFLICT (id) DO UPDATE SET gate = 'paused', waiting = lanes.waiting + excluded.waiting,
    last_sequence = lanes.last_sequence + excluded.last_sequence
"""
