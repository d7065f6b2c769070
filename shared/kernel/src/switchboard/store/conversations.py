"""Conversations: at most one of an app and a contact is active, and every message of the two is in it.

They are locked after lanes and before messages, by id (see `store.contacts`).
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from switchboard.callbacks.compact import timestamp
from switchboard.conversation import NEVER, Conversation
from switchboard.ids import AppId, ContactId, ConversationId, ProjectId, derive
from switchboard.rules.recipient import merge_patch
from switchboard.store.pool import Connection

#: The longest conversation metadata, in characters of JSON (conversation-api 12.3).
MAX_METADATA: Final = 2048


class Exchange(Struct, frozen=True):
    """A message (or event) that goes into the active conversation of an app and a contact."""

    #: The id of what it is. A conversation started by it derives its own id from it.
    cause: str
    project_id: ProjectId
    app_id: AppId
    contact_id: ContactId
    at: datetime
    #: The channel it came on. "": it is on its way to the contact, and no channel has it yet.
    channel: str = ""
    correlation_id: str = ""
    #: What the send says about the conversation from now on. None: nothing.
    metadata: dict[str, Any] | None = None
    #: The metadata is a merge patch (MERGE_PATCH), else a replacement.
    patches: bool = False


class Joined(Struct, frozen=True):
    """The conversation a message is in, as the message left it."""

    conversation: Conversation
    #: It was started by this message: CONVERSATION_START is due.
    is_new: bool = False


def started_by(cause: str, app_id: AppId, contact_id: ContactId) -> Conversation:
    """The conversation that `cause` starts: the same in every process."""
    return Conversation(ConversationId(derive(cause, "conversation")), app_id, contact_id)


async def join(connection: Connection, exchanges: Sequence[Exchange]) -> dict[str, Joined]:
    """Put messages into the active conversations, started where there is none. Returns them by cause.

    In the order given: what one message says about the conversation, the next one finds. Runs in the caller's
    transaction, whose contacts are held (`contacts.match`).
    """
    if not exchanges:
        return {}
    starters: dict[tuple[str, str], Exchange] = {}
    for exchange in exchanges:
        starters.setdefault((exchange.app_id, exchange.contact_id), exchange)
    rows = await _lock_active(connection, starters)
    new: set[str] = set()
    while missing := [starters[pair] for pair in sorted(starters) if pair not in rows]:
        new |= await _start(connection, missing)
        # One that another router has started at the same time is there now.
        rows |= await _lock_active(connection, [(item.app_id, item.contact_id) for item in missing])
    joined: dict[str, Joined] = {}
    for exchange in exchanges:
        pair = (exchange.app_id, exchange.contact_id)
        rows[pair] = row = _exchanged(rows[pair], exchange)
        joined[exchange.cause] = Joined(row.conversation, row.conversation.id in new and starters[pair] is exchange)
    await _save(connection, rows.values())
    return joined


async def active_channels(
    connection: Connection, pairs: Collection[tuple[AppId, ContactId]]
) -> dict[tuple[AppId, ContactId], str]:
    """The active channels of the active conversations, unlocked: what routes begin with."""
    if not pairs:
        return {}
    rows = await connection.fetch(
        "SELECT app_id, contact_id, active_channel FROM switchboard.conversations"
        " JOIN unnest($1::text[], $2::text[]) AS asked (app_id, contact_id) USING (app_id, contact_id) WHERE active",
        *(list(column) for column in zip(*pairs, strict=True)),
    )
    return {(AppId(row["app_id"]), ContactId(row["contact_id"])): row["active_channel"] for row in rows}


async def note_channels(connection: Connection, taken: Iterable[tuple[ConversationId, str, datetime]]) -> None:
    """Note which channel took a message of a conversation, and when. An older fact changes nothing."""
    latest: dict[str, tuple[datetime, str]] = {}
    for conversation_id, channel, at in taken:
        latest[conversation_id] = max(latest.get(conversation_id, (at, channel)), (at, channel))
    if not latest:
        return
    ids = sorted(latest)
    await connection.execute(
        "WITH changed AS (SELECT c.id, told.channel, told.at FROM switchboard.conversations AS c"
        " JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS told (id, channel, at) ON told.id = c.id"
        " WHERE c.active_channel <> told.channel AND (c.exchanged_at IS NULL OR c.exchanged_at < told.at)"
        " ORDER BY c.id FOR NO KEY UPDATE OF c)"
        " UPDATE switchboard.conversations AS c SET active_channel = changed.channel, exchanged_at = changed.at"
        " FROM changed WHERE c.id = changed.id",
        ids, [latest[id][1] for id in ids], [latest[id][0] for id in ids],
    )  # fmt: skip


class _Row(Struct, frozen=True):
    """An active conversation, locked."""

    conversation: Conversation
    last_received: datetime | None
    exchanged_at: datetime | None


async def _lock_active(connection: Connection, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], _Row]:
    rows = await connection.fetch(
        f"SELECT {_COLUMNS}, exchanged_at FROM switchboard.conversations AS c"
        " JOIN unnest($1::text[], $2::text[]) AS asked (app_id, contact_id) USING (app_id, contact_id)"
        " WHERE c.active ORDER BY c.id FOR NO KEY UPDATE OF c",
        *(list(column) for column in zip(*pairs, strict=True)),
    )
    return {
        (row["app_id"], row["contact_id"]): _Row(conversation_of(row), row["last_received"], row["exchanged_at"])
        for row in rows
    }


async def _start(connection: Connection, starters: Sequence[Exchange]) -> set[str]:
    """Start conversations, unless another router has just done so. Returns the ids of those that are new."""
    begun = [started_by(item.cause, item.app_id, item.contact_id) for item in starters]
    rows = await connection.fetch(
        "INSERT INTO switchboard.conversations (id, project_id, app_id, contact_id, told)"
        " SELECT id, project_id, app_id, contact_id, 1"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS new (id, project_id, app_id, contact_id)"
        " ON CONFLICT (app_id, contact_id) WHERE active DO NOTHING RETURNING id",
        [conversation.id for conversation in begun], [item.project_id for item in starters],
        [item.app_id for item in starters], [item.contact_id for item in starters],
    )  # fmt: skip
    return {row["id"] for row in rows}


def _exchanged(row: _Row, exchange: Exchange) -> _Row:
    conversation = row.conversation
    if exchange.correlation_id:
        conversation = replace(conversation, correlation_id=exchange.correlation_id)
    if exchange.metadata is not None:
        conversation = replace(conversation, metadata_json=updated_metadata(conversation.metadata_json, exchange))
    if row.last_received is None or exchange.at > row.last_received:
        row = replace(row, last_received=exchange.at)
        conversation = replace(conversation, last_received=timestamp(exchange.at))
    if exchange.channel and (row.exchanged_at is None or exchange.at >= row.exchanged_at):
        row = replace(row, exchanged_at=exchange.at)
        conversation = replace(conversation, active_channel=exchange.channel)
    return replace(row, conversation=conversation)


def updated_metadata(before: Raw | None, exchange: Exchange) -> Raw | None:
    """The conversation metadata after a send. A patch that would make it longer than allowed changes nothing."""
    if not exchange.patches:
        return Raw(msgspec.json.encode(exchange.metadata))
    old = {} if before is None else msgspec.json.decode(before)
    new = msgspec.json.encode(merge_patch(old, exchange.metadata))
    return Raw(new) if len(new.decode()) <= MAX_METADATA else before


async def _save(connection: Connection, rows: Iterable[_Row]) -> None:
    items = sorted(rows, key=lambda row: row.conversation.id)
    await connection.execute(
        "UPDATE switchboard.conversations AS c SET last_received = new.last_received,"
        " active_channel = new.active_channel, exchanged_at = new.exchanged_at,"
        " correlation_id = new.correlation_id, metadata_json = new.metadata_json"
        " FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::text[], $6::bytea[])"
        " AS new (id, last_received, active_channel, exchanged_at, correlation_id, metadata_json) WHERE c.id = new.id",
        [item.conversation.id for item in items], [item.last_received for item in items],
        [item.conversation.active_channel for item in items], [item.exchanged_at for item in items],
        [item.conversation.correlation_id for item in items],
        [None if item.conversation.metadata_json is None else bytes(item.conversation.metadata_json) for item in items],
    )  # fmt: skip


_COLUMNS: Final = (
    "c.id, c.project_id, c.app_id, c.contact_id, c.active, c.active_channel, c.last_received, c.metadata,"
    " c.metadata_json, c.correlation_id"
)


def conversation_of(row: asyncpg.Record) -> Conversation:
    """The conversation of a row with its columns."""
    return Conversation(
        id=ConversationId(row["id"]),
        app_id=AppId(row["app_id"]),
        contact_id=ContactId(row["contact_id"]),
        last_received=NEVER if row["last_received"] is None else timestamp(row["last_received"]),
        active_channel=row["active_channel"],
        active=row["active"],
        metadata=row["metadata"],
        metadata_json=None if row["metadata_json"] is None else Raw(row["metadata_json"]),
        correlation_id=row["correlation_id"],
    )


async def delete(connection: Connection, ids: Collection[str]) -> None:
    """Delete locked conversations with their messages' contents.

    A message that is under way is sent nevertheless, and loses its content with its end.
    """
    await connection.execute(
        "WITH theirs AS (SELECT m.id FROM switchboard.messages AS m WHERE m.conversation_id = ANY($1::text[])"
        " AND m.body IS NOT NULL ORDER BY m.id FOR UPDATE)"
        " UPDATE switchboard.messages AS m SET body_until = NULL, body = CASE WHEN m.final THEN NULL ELSE m.body END"
        " FROM theirs WHERE m.id = theirs.id",
        list(ids),
    )
    await connection.execute("DELETE FROM switchboard.conversations WHERE id = ANY($1::text[])", list(ids))
