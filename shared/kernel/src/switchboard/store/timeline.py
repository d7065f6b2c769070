"""Rows of the timeline: written in batches by whoever saw something happen, read by message."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from switchboard.ids import MessageId
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes, columns_of
from switchboard.timeline import Entry, Happening, Kind, decode_entry, encode_entry

_INSERT: Final = (
    "INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)"
    " SELECT told.message_id, told.at, told.kind, told.cause, told.entry"
    " FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::bytea[])"
    " WITH ORDINALITY AS told (message_id, at, kind, cause, entry, place) ORDER BY told.place"
)


class Moment(Struct, frozen=True):
    """One stored row of a message's timeline."""

    number: int
    at: datetime
    kind: Kind
    cause: str
    entry: Entry


def add(writes: Writes, happenings: Iterable[Happening]) -> None:
    """Append rows, in the order given."""
    rows = [(h.message_id, h.at, h.kind, h.cause, encode_entry(h.entry)) for h in happenings]
    if rows:
        writes.add("told", _INSERT, *columns_of(rows))


async def write(connection: Connection, happenings: Iterable[Happening]) -> None:
    """Append rows by themselves."""
    writes = Writes()
    add(writes, happenings)
    await writes.execute(connection)


async def read(connection: Connection, message_id: MessageId) -> list[Moment]:
    """The whole timeline of one message, in order."""
    rows = await connection.fetch(
        "SELECT number, at, kind, cause, entry FROM switchboard.timeline WHERE message_id = $1 ORDER BY number",
        message_id,
    )
    return [
        Moment(row["number"], row["at"], Kind(row["kind"]), row["cause"], decode_entry(row["entry"])) for row in rows
    ]


async def find_causes(
    connection: Connection, message_ids: Sequence[MessageId], causes: Sequence[str]
) -> dict[tuple[MessageId, str], Entry]:
    """The entries that these (message, cause) pairs already led to."""
    rows = await connection.fetch(
        "SELECT t.message_id, t.cause, t.entry FROM unnest($1::text[], $2::text[]) AS asked (message_id, cause)"
        " JOIN switchboard.timeline t ON t.message_id = asked.message_id AND t.cause = asked.cause",
        message_ids,
        causes,
    )
    return {(MessageId(row["message_id"]), row["cause"]): decode_entry(row["entry"]) for row in rows}
