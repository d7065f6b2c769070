"""Conversations: at most one of an app and a contact is active, and every message of the two is in it.

They are locked after lanes and before messages, by id (see `store.contacts`).
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.compact import timestamp
from switchboard.conversation import NEVER, Conversation
from switchboard.ids import AppId, ContactId, ConversationId, ProjectId, derive
from switchboard.rules.recipient import merge_patch
from switchboard.store.pool import Connection

#: The longest conversation metadata, in characters of JSON (conversation-api 12.3).
MAX_METADATA: Final = 2048

_encode: Final = msgspec.json.Encoder().encode
_object: Final = msgspec.json.Decoder(dict[str, Any])


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


def updated_metadata(before: dict[str, Any] | None, exchange: Exchange) -> dict[str, Any] | None:
    """The conversation metadata after a send. A patch that would make it longer than allowed changes nothing."""
    if not exchange.patches:
        return exchange.metadata
    new: dict[str, Any] = merge_patch(before or {}, exchange.metadata)
    return new if len(_encode(new).decode()) <= MAX_METADATA else before


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
        [_stored(item.conversation.metadata_json) for item in items],
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
        metadata_json=None if row["metadata_json"] is None else _object.decode(row["metadata_json"]),
        correlation_id=row["correlation_id"],
    )


async def delete(connection: Connection, ids: Collection[str]) -> None:
    """Delete locked conversations with their messages' contents.

    A message that is under way is sent nevertheless, and loses its content with its end.
    """
    await _purge(connection, "conversation_id", list(ids))
    await connection.execute("DELETE FROM switchboard.conversations WHERE id = ANY($1::text[])", list(ids))


class Locked(Struct, frozen=True):
    """A conversation that a client changes."""

    conversation: Conversation
    #: The sequence number of the latest callback about it.
    told: int

    @property
    def id(self) -> ConversationId:
        return self.conversation.id


async def lock(connection: Connection, project_id: ProjectId, conversation_id: str) -> Locked | None:
    """One conversation of a project, to change or delete it."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, c.told FROM switchboard.conversations AS c WHERE c.id = $1 AND c.project_id = $2"
        " FOR UPDATE",
        conversation_id,
        project_id,
    )
    return None if row is None else Locked(conversation_of(row), row["told"])


async def lock_active(connection: Connection, app_id: AppId, contact_id: ContactId) -> Locked | None:
    """The active conversation of an app and a contact, to change it."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, c.told FROM switchboard.conversations AS c"
        " WHERE c.app_id = $1 AND c.contact_id = $2 AND c.active FOR UPDATE",
        app_id,
        contact_id,
    )
    return None if row is None else Locked(conversation_of(row), row["told"])


async def lock_of_contacts(connection: Connection, contact_ids: Collection[ContactId]) -> list[Locked]:
    """All conversations of locked contacts, to move or delete them."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS}, c.told FROM switchboard.conversations AS c WHERE c.contact_id = ANY($1::text[])"
        " ORDER BY c.id FOR UPDATE",
        list(contact_ids),
    )
    return [Locked(conversation_of(row), row["told"]) for row in rows]


async def insert(connection: Connection, project_id: ProjectId, conversation: Conversation) -> None:
    """Insert a conversation that a client made, with its first callback told."""
    await connection.execute(
        "INSERT INTO switchboard.conversations (id, project_id, app_id, contact_id, active, active_channel, metadata,"
        " metadata_json, correlation_id, told) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)",
        conversation.id, project_id, conversation.app_id, conversation.contact_id, conversation.active,
        conversation.active_channel, conversation.metadata, _stored(conversation.metadata_json),
        conversation.correlation_id,
    )  # fmt: skip


async def write(connection: Connection, conversation: Conversation) -> None:
    """Write what a client may change of a locked conversation."""
    await connection.execute(
        "UPDATE switchboard.conversations SET app_id = $2, active = $3, active_channel = $4, metadata = $5,"
        " metadata_json = $6, correlation_id = $7 WHERE id = $1",
        conversation.id, conversation.app_id, conversation.active, conversation.active_channel, conversation.metadata,
        _stored(conversation.metadata_json), conversation.correlation_id,
    )  # fmt: skip


async def tell(connection: Connection, conversation_id: ConversationId) -> int:
    """Take the next sequence number for a callback about a locked conversation."""
    told: int = await connection.fetchval(
        "UPDATE switchboard.conversations SET told = told + 1 WHERE id = $1 RETURNING told", conversation_id
    )
    return told


async def move(connection: Connection, source: ContactId, destination: ContactId) -> list[Locked]:
    """Give the conversations of one locked contact to another (conversation-api 4.4, `:merge`).

    Where both have an active conversation with one app, the messages go into the destination's. Returns the
    conversations of the source that are no more because of that.
    """
    both = await lock_of_contacts(connection, (source, destination))
    kept = {
        c.conversation.app_id: c.id for c in both if c.conversation.active and c.conversation.contact_id == destination
    }
    gone = [
        c for c in both
        if c.conversation.active and c.conversation.contact_id == source and c.conversation.app_id in kept
    ]  # fmt: skip
    into = [kept[c.conversation.app_id] for c in gone]
    for table, absent in (("messages", "NULL"), ("events", "''")):
        await connection.execute(
            f"WITH theirs AS (SELECT m.id, COALESCE(moved.into_id, m.conversation_id) AS conversation_id"
            f" FROM switchboard.{table} AS m"
            " LEFT JOIN unnest($3::text[], $4::text[]) AS moved (id, into_id) ON moved.id = m.conversation_id"
            " WHERE m.contact_id = $1 ORDER BY m.id FOR UPDATE OF m)"
            f" UPDATE switchboard.{table} AS m SET contact_id = $2,"
            f" conversation_id = COALESCE(theirs.conversation_id, {absent}) FROM theirs WHERE m.id = theirs.id",
            source, destination, [c.id for c in gone], into,
        )  # fmt: skip
    await connection.execute(
        "UPDATE switchboard.conversations AS c SET last_received = GREATEST(c.last_received, old.last_received)"
        " FROM unnest($1::text[], $2::text[]) AS moved (id, into_id)"
        " JOIN switchboard.conversations AS old ON old.id = moved.id WHERE c.id = moved.into_id",
        [c.id for c in gone],
        into,
    )
    await connection.execute("DELETE FROM switchboard.conversations WHERE id = ANY($1::text[])", [c.id for c in gone])
    await connection.execute(
        "UPDATE switchboard.conversations SET contact_id = $2 WHERE contact_id = $1", source, destination
    )
    return gone


async def forget_contact(connection: Connection, contact_id: ContactId) -> None:
    """Delete the contents of messages and events of a locked contact that are in no conversation any more."""
    await _purge(connection, "contact_id", [contact_id])


async def _purge(connection: Connection, column: str, ids: list[str]) -> None:
    """Purge contents by contact or conversation: at once, or with the end of what is under way."""
    for table, is_final in (("messages", "m.final"), ("events", "m.state = 'final'")):
        await connection.execute(
            f"WITH theirs AS (SELECT m.id FROM switchboard.{table} AS m WHERE m.{column} = ANY($1::text[])"
            f" AND m.{column} <> '' AND m.body IS NOT NULL ORDER BY m.id FOR UPDATE)"
            f" UPDATE switchboard.{table} AS m SET body_until = NULL,"
            f" body = CASE WHEN {is_final} THEN NULL ELSE m.body END FROM theirs WHERE m.id = theirs.id",
            ids,
        )


def _stored(metadata: dict[str, Any] | None) -> bytes | None:
    return None if metadata is None else _encode(metadata)


class Wanted(Struct, frozen=True):
    """Which conversations of a project a client asks for. "" and False: all."""

    project_id: ProjectId
    app_id: str = ""
    contact_id: str = ""
    only_active: bool = False
    active_channel: str = ""
    only_with_messages: bool = False

    @property
    def condition(self) -> str:
        """What rows fulfil, with the parameters $1 to $4."""
        return (
            "c.project_id = $1 AND ($2 = '' OR c.app_id = $2) AND ($3 = '' OR c.contact_id = $3)"
            " AND ($4 = '' OR c.active_channel = $4)"
            + (" AND c.active" if self.only_active else "")
            + (" AND c.last_received IS NOT NULL" if self.only_with_messages else "")
        )

    @property
    def parameters(self) -> tuple[str, str, str, str]:
        return self.project_id, self.app_id, self.contact_id, self.active_channel


class Place(Struct, frozen=True):
    """Where a page of conversations ends, in the order of their last messages."""

    at: datetime
    id: str

    @classmethod
    def parse(cls, text: str | None) -> "Place | None":
        """The place that `str` wrote."""
        if text is None:
            return None
        at, _, conversation_id = text.partition("|")
        return cls(datetime.fromisoformat(at), conversation_id)

    def __str__(self) -> str:
        return f"{self.at.isoformat()}|{self.id}"


class Recent(Struct, frozen=True):
    """A conversation and its place among the recent ones."""

    conversation: Conversation
    place: Place


async def read(connection: Connection, project_id: ProjectId, conversation_id: ConversationId) -> Conversation | None:
    """One conversation of a project."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM switchboard.conversations AS c WHERE c.id = $1 AND c.project_id = $2",
        conversation_id,
        project_id,
    )
    return None if row is None else conversation_of(row)


async def page(connection: Connection, wanted: Wanted, *, before: str | None, limit: int) -> list[Conversation]:
    """Conversations, the newest first, from before an id."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM switchboard.conversations AS c WHERE {wanted.condition}"
        " AND ($5::text IS NULL OR c.id < $5) ORDER BY c.id DESC LIMIT $6",
        *wanted.parameters,
        before,
        limit,
    )
    return [conversation_of(row) for row in rows]


async def count(connection: Connection, wanted: Wanted) -> int:
    """How many conversations there are of these."""
    found: int = await connection.fetchval(
        f"SELECT count(*) FROM switchboard.conversations AS c WHERE {wanted.condition}", *wanted.parameters
    )
    return found


async def recent(
    connection: Connection, wanted: Wanted, *, after: Place | None, ascending: bool, limit: int
) -> list[Recent]:
    """Conversations by the time of their last message, from after a place."""
    direction, beyond = ("ASC", ">") if ascending else ("DESC", "<")
    moment = "COALESCE(c.last_received, c.created_at)"
    rows = await connection.fetch(
        f"SELECT {_COLUMNS}, {moment} AS at FROM switchboard.conversations AS c WHERE {wanted.condition}"
        f" AND ($5::timestamptz IS NULL OR ({moment}, c.id) {beyond} ($5, $6))"
        f" ORDER BY {moment} {direction}, c.id {direction} LIMIT $7",
        *wanted.parameters,
        None if after is None else after.at,
        None if after is None else after.id,
        limit,
    )
    return [Recent(conversation_of(row), Place(row["at"], row["id"])) for row in rows]


async def received(connection: Connection, conversation_id: ConversationId, at: datetime) -> None:
    """Note a message of a locked conversation."""
    await connection.execute(
        "UPDATE switchboard.conversations SET last_received = GREATEST(last_received, $2) WHERE id = $1",
        conversation_id,
        at,
    )
