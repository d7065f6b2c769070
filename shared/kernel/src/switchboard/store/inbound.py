"""Messages from people: one final row each, so that they can be read and a record seen again is known."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard.content import ContactMessage
from switchboard.ids import AppId, ContactId, ConversationId, MessageId
from switchboard.records import MessageReceived, ProcessingMode
from switchboard.status import Status
from switchboard.store.messages import Envelope
from switchboard.store.pool import Connection

_encode: Final = msgspec.json.Encoder().encode
_message: Final = msgspec.json.Decoder(ContactMessage)
_sent_envelope: Final = msgspec.json.Decoder(Envelope)
_COLUMNS: Final = (
    "id", "project_id", "app_id", "direction", "mode", "accepted_at", "channel", "identity", "envelope", "body",
    "body_until", "contact_id", "conversation_id", "phase", "status", "status_at", "final", "final_at",
)  # fmt: skip


class InboundEnvelope(Struct, frozen=True, omit_defaults=True):
    """What a message from a person has besides its content and identity."""

    sender_id: str = ""
    #: The `metadata` of the message: the channel's facts as JSON, or what the message replied to had.
    metadata: str = ""
    #: What its callbacks bring back of earlier sends.
    correlation_id: str = ""
    conversation_metadata: dict[str, Any] | None = None
    #: The message made its contact, its conversation: their callbacks are told again if its record is seen again.
    makes_contact: bool = False
    starts_conversation: bool = False
    #: It came another way and is only kept here.
    injected: bool = False


_envelope: Final = msgspec.json.Decoder(InboundEnvelope)


class Inbound(Struct, frozen=True):
    """A message from a person, to insert."""

    record: MessageReceived
    mode: ProcessingMode
    envelope: InboundEnvelope
    #: Until when the content is kept; None: retention 0.
    body_until: datetime | None
    #: None in dispatch mode.
    contact_id: ContactId | None = None
    conversation_id: ConversationId | None = None


async def insert(connection: Connection, messages: Sequence[Inbound], now: datetime) -> None:
    """Insert new messages from people. Raises UniqueViolationError if another router has just inserted one."""
    records = [
        (
            item.record.message_id, item.record.project_id, item.record.app_id, "TO_APP", item.mode,
            item.record.accepted_at, item.record.identity.channel, item.record.identity.identity,
            _encode(item.envelope), _encode(item.record.message), item.body_until, item.contact_id,
            item.conversation_id, "FINAL", Status.RECEIVED, now, True, now,
        )
        for item in messages
    ]  # fmt: skip
    if records:
        await connection.copy_records_to_table("messages", records=records, columns=_COLUMNS, schema_name="switchboard")


class Kept(Struct, frozen=True):
    """A message that was seen before, as it was kept."""

    envelope: InboundEnvelope
    #: None once purged.
    message: ContactMessage | None
    mode: ProcessingMode
    contact_id: ContactId | None
    conversation_id: ConversationId | None


async def kept(connection: Connection, ids: Sequence[MessageId]) -> dict[MessageId, Kept]:
    """Which of these messages have a row, and what of them is there."""
    rows = await connection.fetch(
        "SELECT id, envelope, body, mode, contact_id, conversation_id FROM switchboard.messages"
        " WHERE id = ANY($1::text[])",
        list(ids),
    )
    return {
        MessageId(row["id"]): Kept(
            _envelope.decode(row["envelope"] or b"{}"),
            None if row["body"] is None else _message.decode(row["body"]),
            ProcessingMode(row["mode"]),
            row["contact_id"],
            row["conversation_id"],
        )
        for row in rows
    }


async def metadata_of(connection: Connection, sent: Collection[tuple[AppId, str]]) -> dict[str, str]:
    """The `message_metadata` of messages of these apps to people, by message id, as far as their envelopes are kept."""
    if not sent:
        return {}
    apps, ids = ([*column] for column in zip(*sorted(sent), strict=True))
    rows = await connection.fetch(
        "SELECT message.id, message.envelope FROM unnest($1::text[], $2::text[]) AS asked (app_id, id)"
        " JOIN switchboard.messages AS message USING (app_id, id)"
        " WHERE message.direction = 'TO_CONTACT' AND message.envelope IS NOT NULL",
        apps,
        ids,
    )
    return {row["id"]: _sent_envelope.decode(row["envelope"]).metadata for row in rows}
