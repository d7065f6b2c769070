"""Receipts that met no outcome when they came: stored until the attempt they belong to is known (DESIGN 5)."""

from typing import Final

import msgspec
from msgspec import Struct

from switchboard.channel.contract import ReceiptFact
from switchboard.ids import MessageId
from switchboard.store.pool import Connection

_fact: Final = msgspec.json.Decoder(ReceiptFact)


class Met(Struct, frozen=True):
    """The attempt's part that a stored receipt turned out to be about."""

    step: int
    submission: int
    #: As the attempt's outcome has it.
    provider_id: str


async def waiting_for(connection: Connection, message_id: MessageId) -> list[tuple[Met, ReceiptFact]]:
    """The stored receipts that belong to a message's attempts, in the order they came."""
    rows = await connection.fetch(
        "SELECT p.step, p.submission, p.provider_id, r.fact"
        " FROM switchboard.provider_ids p CROSS JOIN LATERAL switchboard.receipts_called(ARRAY[p.provider_id]) r"
        " WHERE p.message_id = $1 AND r.account = p.account ORDER BY r.received_at",
        message_id,
    )
    return [(Met(row["step"], row["submission"], row["provider_id"]), _fact.decode(row["fact"])) for row in rows]
