"""Messages and events that went another way and are only kept here (conversation-api 4.5): final from the start."""

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.ids import AppId, ContactId, ConversationId, MessageId, ProjectId
from switchboard.store.inbound import InboundEnvelope
from switchboard.store.messages import Envelope
from switchboard.store.pool import Connection

_encode: Final = msgspec.json.Encoder().encode


class Injected(Struct, frozen=True, kw_only=True):
    """A message of a locked conversation, to insert."""

    id: MessageId
    project_id: ProjectId
    app_id: AppId
    to_app: bool
    #: When it was, which may be long ago; the id is of today.
    accepted_at: datetime
    channel: str
    identity: str
    #: JSON of an AppMessage or ContactMessage.
    content: bytes
    metadata: str
    sender_id: str
    contact_id: ContactId
    conversation_id: ConversationId
    body_until: datetime | None


class InjectedEvent(Struct, frozen=True, kw_only=True):
    """An app event of a locked conversation, to insert."""

    id: MessageId
    project_id: ProjectId
    app_id: AppId
    accepted_at: datetime
    channel: str
    identity: str
    #: JSON of an AppEvent.
    content: bytes
    contact_id: ContactId
    conversation_id: ConversationId
    body_until: datetime | None


async def insert(connection: Connection, message: Injected, now: datetime) -> None:
    """Insert a message."""
    envelope: Envelope | InboundEnvelope
    if message.to_app:
        envelope = InboundEnvelope(message.sender_id, message.metadata, injected=True)
    else:
        envelope = Envelope(metadata=message.metadata, injected=True)
    await connection.execute(
        "INSERT INTO switchboard.messages (id, project_id, app_id, direction, mode, accepted_at, channel, identity,"
        " envelope, body, body_until, contact_id, conversation_id, phase, status, status_at, final, final_at)"
        " VALUES ($1, $2, $3, $4, 'CONVERSATION', $5, $6, $7, $8, $9, $10, $11, $12, 'FINAL', $13, $14, true, $14)",
        message.id, message.project_id, message.app_id, "TO_APP" if message.to_app else "TO_CONTACT",
        message.accepted_at, message.channel, message.identity, _encode(envelope), message.content,
        message.body_until, message.contact_id, message.conversation_id,
        "RECEIVED" if message.to_app else "DELIVERED", now,
    )  # fmt: skip


async def insert_event(connection: Connection, event: InjectedEvent, now: datetime) -> None:
    """Insert an event."""
    await connection.execute(
        "INSERT INTO switchboard.events (id, project_id, app_id, direction, mode, accepted_at, channel, identity,"
        " contact_id, conversation_id, envelope, kind, body, body_until, state, status, final_at)"
        " VALUES ($1, $2, $3, 'TO_CONTACT', 'CONVERSATION', $4, $5, $6, $7, $8, '{}', 'app_event', $9, $10, 'final',"
        " 'DELIVERED', $11)",
        event.id, event.project_id, event.app_id, event.accepted_at, event.channel, event.identity, event.contact_id,
        event.conversation_id, event.content, event.body_until, now,
    )  # fmt: skip
