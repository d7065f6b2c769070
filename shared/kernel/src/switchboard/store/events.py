"""Events to and from people: one row each, claimed before it is carried out (conversation-api 4.6)."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec
from msgspec import Struct

from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, ContactId, MessageId, ProjectId
from switchboard.reason import Reason
from switchboard.records import ProcessingMode
from switchboard.status import Status
from switchboard.store.pool import Connection, Pool


class Envelope(Struct, frozen=True, omit_defaults=True):
    """What a delivery report of an event needs besides the event."""

    metadata: str = ""
    callback_url: str = ""
    #: Of the identity, where its channel scopes identities to apps.
    identity_app_id: str = ""
    #: Of the conversation, or of the identity in dispatch mode: only of events from people.
    correlation_id: str = ""
    #: The event made its contact, its conversation: their callbacks are told again if its record is seen again.
    makes_contact: bool = False
    starts_conversation: bool = False


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event's row."""

    id: MessageId
    project_id: ProjectId
    app_id: AppId
    direction: str = "TO_CONTACT"
    mode: ProcessingMode
    accepted_at: datetime
    identity: ChannelIdentity
    contact_id: str = ""
    conversation_id: str = ""
    envelope: Envelope = Envelope()
    #: `app_event`, `contact_event` or `contact_message_event`: what the body is.
    kind: str
    #: JSON. None once purged.
    body: bytes | None
    #: Until when the body is kept; None: until the event is final (retention 0).
    body_until: datetime | None
    #: planned, claimed or final.
    state: str
    status: Status
    reason: Reason | None = None
    due_at: datetime | None = None
    final_at: datetime | None = None

    @property
    def contact(self) -> ContactId | None:
        """Its contact; None in dispatch mode."""
        return ContactId(self.contact_id) if self.contact_id else None


_encode: Final = msgspec.json.Encoder().encode
_envelope: Final = msgspec.json.Decoder(Envelope)
_reason: Final = msgspec.json.Decoder(Reason)
_COLUMNS: Final = (
    "id", "project_id", "app_id", "direction", "mode", "accepted_at", "channel", "identity", "contact_id",
    "conversation_id", "envelope", "kind", "body", "body_until", "state", "status", "reason", "due_at", "final_at",
)  # fmt: skip
SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM switchboard.events"

_END: Final = """
UPDATE switchboard.events AS event SET state = 'final', status = ended.status, reason = ended.reason,
    due_at = NULL, final_at = $4
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS ended (id, status, reason)
WHERE event.id = ended.id AND event.state <> 'final'
"""
_CLAIM: Final = """
UPDATE switchboard.events SET state = 'claimed', due_at = switchboard.now() + $2
WHERE id = $1 AND state = 'planned' AND due_at > switchboard.now() RETURNING id
"""


async def insert(connection: Connection, events: Sequence[StoredEvent]) -> None:
    """Insert new events. Raises UniqueViolationError if another router has just inserted one."""
    rows = [
        (
            event.id, event.project_id, event.app_id, event.direction, event.mode, event.accepted_at,
            event.identity.channel, event.identity.identity, event.contact_id, event.conversation_id,
            _encode(event.envelope), event.kind, event.body, event.body_until, event.state, event.status,
            None if event.reason is None else _encode(event.reason), event.due_at, event.final_at,
        )
        for event in events
    ]  # fmt: skip
    if rows:
        await connection.copy_records_to_table("events", records=rows, columns=_COLUMNS, schema_name="switchboard")


async def read(
    connection: Connection, ids: Collection[MessageId], *, lock: bool = False
) -> dict[MessageId, StoredEvent]:
    """The events that have a row; locked in the order of their ids if asked for."""
    if not ids:
        return {}
    locking = " ORDER BY id FOR UPDATE" if lock else ""
    rows = await connection.fetch(f"{SELECT} WHERE id = ANY($1::text[]){locking}", sorted(ids))
    return {MessageId(row["id"]): of_row(row) for row in rows}


async def claim(pool: Pool, event_id: MessageId, seconds: float) -> bool:
    """Take a planned event before its time is up, for so long. Whoever gets False does nothing."""
    return await pool.fetchval(_CLAIM, event_id, timedelta(seconds=seconds)) is not None


async def end(connection: Connection, ended: Sequence[tuple[MessageId, Status, Reason | None]], now: datetime) -> None:
    """Write how events ended, once each. They are locked."""
    if ended:
        ids, statuses, reasons = zip(*ended, strict=True)
        encoded = [None if reason is None else _encode(reason) for reason in reasons]
        await connection.execute(_END, list(ids), list(statuses), encoded, now)


def of_row(row: asyncpg.Record) -> StoredEvent:
    """A row, typed."""
    envelope = _envelope.decode(row["envelope"] or b"{}")
    return StoredEvent(
        id=MessageId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        app_id=AppId(row["app_id"]),
        direction=row["direction"],
        mode=ProcessingMode(row["mode"]),
        accepted_at=row["accepted_at"],
        identity=ChannelIdentity(row["channel"], row["identity"], envelope.identity_app_id),
        contact_id=row["contact_id"],
        conversation_id=row["conversation_id"],
        envelope=envelope,
        kind=row["kind"],
        body=row["body"],
        body_until=row["body_until"],
        state=row["state"],
        status=Status(row["status"]),
        reason=None if row["reason"] is None else _reason.decode(row["reason"]),
        due_at=row["due_at"],
        final_at=row["final_at"],
    )
