"""Who stands in a line. What stands there is published by its lane's drainer and by nobody else.

An item that is leased has its slot, and may be published already or not at all: only the drainer, or who takes its
lane over, publishes it in the line's order. Published by somebody else, for its record is seen again or its time to be
claimed ran out, it would pass those before it (DESIGN 2, promise 5).
"""

from collections.abc import Collection
from typing import Final

from switchboard.ids import MessageId
from switchboard.lanes.locked import AttemptKey
from switchboard.store.pool import Connection

_IN_LINE: Final = (
    "SELECT message_id, step, submission FROM switchboard.lane_items"
    " JOIN unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)"
    " USING (message_id, step, submission)"
)


async def in_line(connection: Connection, attempts: Collection[AttemptKey]) -> set[AttemptKey]:
    """Which of these attempts stand in a line, leased or not."""
    if not attempts:
        return set()
    columns = (list(column) for column in zip(*sorted(attempts), strict=True))
    rows = await connection.fetch(_IN_LINE, *columns)
    return {(MessageId(row["message_id"]), row["step"], row["submission"]) for row in rows}
