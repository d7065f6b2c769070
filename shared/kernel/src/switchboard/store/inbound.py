"""Messages from people: one final row each, so that they can be read and a record seen again is known."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.ids import MessageId
from switchboard.records import MessageReceived, ProcessingMode
from switchboard.status import Status
from switchboard.store.pool import Connection

_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = (
    "id", "project_id", "app_id", "direction", "mode", "accepted_at", "channel", "identity", "envelope", "body",
    "body_until", "phase", "status", "status_at", "final", "final_at",
)  # fmt: skip


class InboundEnvelope(Struct, frozen=True, omit_defaults=True):
    """What a message from a person has besides its content and identity."""

    sender_id: str = ""
    #: The `metadata` of the message: the channel's facts as JSON, or what the message replied to had.
    metadata: str = ""


class Inbound(Struct, frozen=True):
    """A message from a person, to insert."""

    record: MessageReceived
    mode: ProcessingMode
    envelope: InboundEnvelope
    #: Until when the content is kept; None: retention 0.
    body_until: datetime | None


async def insert(connection: Connection, messages: Sequence[Inbound], now: datetime) -> None:
    """Insert new messages from people. Raises UniqueViolationError if another router has just inserted one."""
    records = [
        (
            item.record.message_id, item.record.project_id, item.record.app_id, "TO_APP", item.mode,
            item.record.accepted_at, item.record.identity.channel, item.record.identity.identity,
            _encode(item.envelope), _encode(item.record.message), item.body_until, "FINAL", Status.RECEIVED, now, True,
            now,
        )
        for item in messages
    ]  # fmt: skip
    if records:
        await connection.copy_records_to_table("messages", records=records, columns=_COLUMNS, schema_name="switchboard")


async def unpurged(connection: Connection, ids: Sequence[MessageId]) -> dict[MessageId, bool]:
    """Which of these messages have a row, and whether their content is still there."""
    rows = await connection.fetch(
        "SELECT id, body IS NOT NULL AS is_there FROM switchboard.messages WHERE id = ANY($1::text[])", list(ids)
    )
    return {MessageId(row["id"]): row["is_there"] for row in rows}
