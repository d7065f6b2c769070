"""Messages to contacts and their attempts: read and written in batches, locked in one order (DESIGN 5).

The order everywhere is contacts, lanes, conversations, messages, attempts, each by id (`store.contacts`), within one
statement, too (`Writes.require`).
Nothing here decides: it stores what the rules decided. Messages are looked at without a lock and decided about; what
is then written holds only if they still are as they were seen (ADR 0025).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct, field

from switchboard.channel.outcome import Outcome
from switchboard.content import AppMessage
from switchboard.identity import ChannelIdentity
from switchboard.ids import AccountKey, AppId, ContactId, ConversationId, LaneId, MessageId, ProjectId
from switchboard.reason import Reason
from switchboard.records import ProcessingMode
from switchboard.rules.consent import ContentType
from switchboard.rules.progress import AttemptView, Ledger, Phase, Policy, Progress
from switchboard.rules.route import Route
from switchboard.status import Status
from switchboard.store.pool import Connection
from switchboard.store.writes import Writes, columns_of
from switchboard.timeline import Happening, encode_entry


class Envelope(Struct, frozen=True, omit_defaults=True):
    """What reports and dispatches need besides the content. Stays until the receipt horizon after the end."""

    identities: tuple[ChannelIdentity, ...] = ()
    metadata: str = ""
    correlation_id: str = ""
    callback_url: str = ""
    channel_properties: dict[str, str] = field(default_factory=dict)
    policy: Policy = Policy()
    #: What consent looks at before every attempt (conversation-api 11.5, 14).
    content_type: ContentType = ContentType.CONTENT_UNKNOWN
    #: It answers a keyword: consent does not stop it.
    is_confirmation: bool = False
    #: The message made its contact, its conversation: their callbacks are told again if its record is seen again.
    makes_contact: bool = False
    starts_conversation: bool = False
    #: It went another way and is only kept here.
    injected: bool = False


class Message(Struct, frozen=True):
    """A message to a contact: what it is, and where it is."""

    id: MessageId
    project_id: ProjectId
    app_id: AppId
    mode: ProcessingMode
    accepted_at: datetime
    high_priority: bool
    envelope: Envelope
    route: Route
    progress: Progress
    #: The content as JSON of an AppMessage. None once purged, or where the reader did not ask for it.
    body: bytes | None = None
    body_until: datetime | None = None
    #: None in dispatch mode.
    contact_id: ContactId | None = None
    conversation_id: ConversationId | None = None

    @property
    def identity(self) -> ChannelIdentity | None:
        """The identity of the step the message is at; the first as addressed if there is no step."""
        steps = self.route.steps
        if steps:
            return steps[min(self.progress.step, len(steps) - 1)].identity
        return self.envelope.identities[0] if self.envelope.identities else None

    def content(self) -> AppMessage | None:
        """The content, decoded."""
        return None if self.body is None else _content.decode(self.body)


class PlannedAttempt(Struct, frozen=True):
    """An attempt to insert. `send_before` None: it waits in its lane."""

    message_id: MessageId
    step: int
    submission: int
    app_id: AppId
    account: AccountKey
    identity: ChannelIdentity
    send_before: datetime | None
    lanes: tuple[LaneId, ...]


class StoredAttempt(Struct, frozen=True):
    """An attempt's row, as the router looks at it."""

    message_id: MessageId
    step: int
    submission: int
    view: AttemptView
    outcome: Outcome | None
    finished_at: datetime | None
    lanes: tuple[LaneId, ...]

    @property
    def key(self) -> tuple[MessageId, int, int]:
        return self.message_id, self.step, self.submission


class Look(Struct, frozen=True):
    """A message and its current attempt, as they were when somebody looked at them without a lock."""

    message: Message
    attempt: StoredAttempt | None
    #: The fact that was asked about has led to something before.
    is_seen: bool
    #: Which writes of the rows these are.
    version: int
    attempt_version: int | None


class Change(Struct, frozen=True):
    """What was decided about a message that was looked at."""

    look: Look
    after: Message
    #: None: nothing that belongs into the message's life.
    told: Happening | None


class Moved(Exception):
    """A message is not as it was seen any more: what was decided about it counts for nothing."""


_encode: Final = msgspec.json.Encoder().encode
_content: Final = msgspec.json.Decoder(AppMessage)
_envelope: Final = msgspec.json.Decoder(Envelope)
_route: Final = msgspec.json.Decoder(Route)
_ledger: Final = msgspec.json.Decoder(Ledger)
_reason: Final = msgspec.json.Decoder(Reason)
#: Between lanes that travel as one text: a column of arrays is not a thing `unnest` knows.
_SEPARATOR: Final = "\x1f"
_outcome: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)

#: The mutable columns of a row, in the order `_progress_values` gives them, with their types for unnest.
_PROGRESS_COLUMNS: Final = {
    "phase": "text", "status": "text", "status_at": "timestamptz", "reason": "bytea", "step": "smallint",
    "submission": "integer", "tries": "integer", "first_failed_at": "timestamptz", "ledger": "bytea",
    "expires_at": "timestamptz", "ttl_ends_at": "timestamptz", "step_due_at": "timestamptz",
    "retry_at": "timestamptz", "claim_due_at": "timestamptz", "horizon_at": "timestamptz",
    "next_due": "timestamptz", "final": "boolean", "final_at": "timestamptz",
}  # fmt: skip
_IDENTITY_COLUMNS: Final = {
    "id": "text", "project_id": "text", "app_id": "text", "direction": "text", "mode": "text",
    "accepted_at": "timestamptz", "channel": "text", "identity": "text", "envelope": "bytea", "body": "bytea",
    "body_until": "timestamptz", "route": "bytea", "high_priority": "boolean", "contact_id": "text",
    "conversation_id": "text",
}  # fmt: skip
_COLUMNS: Final = {**_IDENTITY_COLUMNS, **_PROGRESS_COLUMNS}
_INSERT: Final = (
    f"INSERT INTO switchboard.messages ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    f"{', '.join(f'${number}::{kind}[]' for number, kind in enumerate(_COLUMNS.values(), 1))})"
)
#: A change besides the progress: what was seen, and the row of the timeline.
_CHANGE_COLUMNS: Final = {
    "id": "text", "version": "xid", "seen_step": "smallint", "seen_submission": "integer", "attempt_version": "xid",
    "told_at": "timestamptz", "kind": "text", "cause": "text", "entry": "bytea", **_PROGRESS_COLUMNS,
}  # fmt: skip
_UNMOVED: Final = (
    f"SELECT new.* FROM unnest("
    f"{', '.join(f'${number}::{kind}[]' for number, kind in enumerate(_CHANGE_COLUMNS.values(), 1))})"
    f" AS new ({', '.join(_CHANGE_COLUMNS)})"
    " JOIN switchboard.messages AS message ON message.id = new.id AND message.xmin = new.version"
    " ORDER BY new.id FOR UPDATE OF message"
)
_UNCLAIMED: Final = (
    "SELECT unmoved.* FROM unmoved LEFT JOIN LATERAL ("
    "SELECT attempt.xmin AS version FROM switchboard.attempts AS attempt WHERE attempt.message_id = unmoved.id"
    " AND attempt.step = unmoved.seen_step AND attempt.submission = unmoved.seen_submission FOR UPDATE"
    ") AS attempt ON true WHERE attempt.version IS NOT DISTINCT FROM unmoved.attempt_version"
)
_SAVE: Final = (
    f"UPDATE switchboard.messages AS message SET {', '.join(f'{name} = held.{name}' for name in _PROGRESS_COLUMNS)}"
    " FROM held WHERE message.id = held.id"
)
_TELL: Final = (
    "INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)"
    " SELECT id, told_at, kind, cause, entry FROM held WHERE kind IS NOT NULL"
)
_FIXED: Final = (
    "id, project_id, app_id, mode, accepted_at, high_priority, envelope, route, body_until, contact_id, conversation_id"
)
_SELECT: Final = f"SELECT {_FIXED}, {', '.join(_PROGRESS_COLUMNS)} FROM switchboard.messages"
_LOOK: Final = f"""
SELECT clock.now, {", ".join(f"message.{name}" for name in (*_FIXED.split(", "), *_PROGRESS_COLUMNS))},
    message.xmin AS version, attempt.xmin AS attempt_version, attempt.state, attempt.send_before, attempt.republished,
    attempt.claimed_at, attempt.outcome, attempt.finished_at, attempt.lanes,
    EXISTS (SELECT FROM switchboard.timeline AS told
            WHERE told.message_id = message.id AND told.cause = asked.cause) AS is_seen
FROM (SELECT switchboard.now() AS now OFFSET 0) AS clock
CROSS JOIN unnest($1::text[], $2::text[]) AS asked (id, cause)
JOIN switchboard.messages AS message ON message.id = asked.id AND message.direction = 'TO_CONTACT'
LEFT JOIN switchboard.attempts AS attempt ON attempt.message_id = message.id AND attempt.step = message.step
    AND attempt.submission = message.submission
ORDER BY message.id
"""


async def known(connection: Connection, ids: Collection[MessageId]) -> tuple[set[MessageId], datetime]:
    """Which of these messages have a row, and the database's time."""
    rows = await connection.fetch(
        "SELECT message.id, clock.now FROM (SELECT switchboard.now() AS now OFFSET 0) AS clock"
        " LEFT JOIN switchboard.messages AS message ON message.id = ANY($1::text[])",
        list(ids),
    )
    return {MessageId(row["id"]) for row in rows if row["id"] is not None}, rows[0]["now"]


def insert(writes: Writes, messages: Sequence[Message]) -> None:
    """Insert new messages. Raises UniqueViolationError if another router has just planned one of them."""
    rows = []
    for message in messages:
        identity = message.identity
        rows.append(
            (
                message.id, message.project_id, message.app_id, "TO_CONTACT", message.mode, message.accepted_at,
                identity.channel if identity else "", identity.identity if identity else "",
                _encode(message.envelope), message.body, message.body_until, _encode(message.route),
                message.high_priority, message.contact_id, message.conversation_id,
                *_progress_values(message.progress),
            )
        )  # fmt: skip
    if rows:
        writes.add("inserted", _INSERT, *columns_of(rows))


async def look(connection: Connection, causes: Mapping[MessageId, str]) -> tuple[dict[MessageId, Look], datetime]:
    """Look at messages, each with a cause that may have led to something before; without a lock or their content.

    With the database's time; that of no row at all is the least there is.
    """
    rows = await connection.fetch(_LOOK, list(causes), list(causes.values()))
    looks = {
        MessageId(row["id"]): Look(
            _message(row, None),
            None if row["attempt_version"] is None else _current_attempt(row),
            row["is_seen"],
            row["version"],
            row["attempt_version"],
        )
        for row in rows
    }
    return looks, rows[0]["now"] if rows else datetime.min.replace(tzinfo=UTC)


def change(writes: Writes, changes: Sequence[Change], *, with_attempts: bool) -> None:
    """Write changes of messages that still are as they were seen: the part `held` returns those.

    `with_attempts`: their current attempts must be the same, too, and nobody claims them before the transaction ends.
    """
    _hold(writes, changes, with_attempts=with_attempts)
    writes.add("saved", _SAVE)
    writes.add("told", _TELL)


async def hold(connection: Connection, changes: Sequence[Change]) -> None:
    """Lock messages and their current attempts, in the caller's transaction. Raises Moved if one is not as it was."""
    writes = Writes()
    _hold(writes, changes, with_attempts=True)
    if len(await writes.execute(connection, returning="held")) < len(changes):
        raise Moved


def _hold(writes: Writes, changes: Sequence[Change], *, with_attempts: bool) -> None:
    rows = [_change_values(one) for one in sorted(changes, key=lambda one: one.after.id)]
    if with_attempts:
        writes.add("unmoved", _UNMOVED, *columns_of(rows))
        writes.add("held", _UNCLAIMED)
    else:
        writes.add("held", _UNMOVED, *columns_of(rows))


async def read(connection: Connection, ids: Collection[MessageId], *, body: bool = False) -> dict[MessageId, Message]:
    """The messages that have a row, unlocked; with their content if asked for."""
    columns = _SELECT.replace(" FROM", ", body FROM", 1) if body else _SELECT
    rows = await connection.fetch(f"{columns} WHERE id = ANY($1::text[]) AND direction = 'TO_CONTACT'", sorted(ids))
    return {MessageId(row["id"]): _message(row, row["body"] if body else None) for row in rows}


async def bodies(connection: Connection, ids: Collection[MessageId]) -> dict[MessageId, bytes | None]:
    """The stored contents of messages; None where purged."""
    if not ids:
        return {}
    rows = await connection.fetch("SELECT id, body FROM switchboard.messages WHERE id = ANY($1::text[])", sorted(ids))
    return {MessageId(row["id"]): row["body"] for row in rows}


def insert_attempts(writes: Writes, attempts: Sequence[PlannedAttempt]) -> None:
    """Insert planned attempts of messages that are locked or new."""
    rows = [
        (
            attempt.message_id, attempt.step, attempt.submission, attempt.app_id, attempt.account,
            attempt.identity.channel, attempt.identity.identity, attempt.send_before, _SEPARATOR.join(attempt.lanes),
        )
        for attempt in attempts
    ]  # fmt: skip
    if rows:
        writes.add(
            "planned",
            "INSERT INTO switchboard.attempts (message_id, step, submission, app_id, account, channel, identity, state,"
            " send_before, lanes) SELECT message_id, step, submission, app_id, account, channel, identity, 'planned',"
            " send_before, string_to_array(lanes, chr(31)) FROM unnest($1::text[], $2::smallint[], $3::integer[],"
            " $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::text[]) AS new"
            " (message_id, step, submission, app_id, account, channel, identity, send_before, lanes)",
            *columns_of(rows),
        )


async def read_attempts(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]]
) -> dict[tuple[MessageId, int, int], StoredAttempt]:
    """The named attempts' rows, unlocked."""
    if not keys:
        return {}
    rows = await connection.fetch(
        "SELECT a.message_id, a.step, a.submission, a.state, a.send_before, a.republished, a.claimed_at, a.outcome,"
        " a.finished_at, a.lanes FROM switchboard.attempts a"
        " JOIN unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)"
        " USING (message_id, step, submission)",
        *columns_of(sorted(keys)),
    )
    return {
        (MessageId(row["message_id"]), row["step"], row["submission"]): _attempt(
            MessageId(row["message_id"]), row["step"], row["submission"], row
        )
        for row in rows
    }


async def cancel_attempts(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]]
) -> set[tuple[MessageId, int, int]]:
    """Take back attempts that are still planned. Returns which were: who lost the race to a claim does nothing."""
    if not keys:
        return set()
    ids, steps, submissions = (list(column) for column in zip(*sorted(keys), strict=True))
    rows = await connection.fetch(
        "UPDATE switchboard.attempts a SET state = 'cancelled'"
        " FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)"
        " WHERE a.message_id = asked.message_id AND a.step = asked.step AND a.submission = asked.submission"
        " AND a.state = 'planned' RETURNING a.message_id, a.step, a.submission",
        ids,
        steps,
        submissions,
    )
    return {(MessageId(row["message_id"]), row["step"], row["submission"]) for row in rows}


def note_left(writes: Writes, keys: Collection[tuple[MessageId, int, int]]) -> None:
    """Note that attempts whose lanes are known are counted in none any more. Their messages are locked."""
    if keys:
        writes.add(
            "left_lanes",
            "UPDATE switchboard.attempts AS attempt SET lanes = '{}'"
            " FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS gone (message_id, step, submission)"
            " WHERE attempt.message_id = gone.message_id AND attempt.step = gone.step"
            " AND attempt.submission = gone.submission",
            *columns_of(sorted(keys)),
        )


async def leave_lanes(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]]
) -> dict[tuple[MessageId, int, int], tuple[LaneId, ...]]:
    """Note that attempts are counted in no lane any more. Returns the lanes that counted them, once."""
    if not keys:
        return {}
    ids, steps, submissions = (list(column) for column in zip(*sorted(keys), strict=True))
    rows = await connection.fetch(
        "UPDATE switchboard.attempts a SET lanes = '{}'"
        " FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)"
        " WHERE a.message_id = asked.message_id AND a.step = asked.step AND a.submission = asked.submission"
        " AND a.lanes <> '{}' RETURNING a.message_id, a.step, a.submission, old.lanes",
        ids,
        steps,
        submissions,
    )
    return {
        (MessageId(row["message_id"]), row["step"], row["submission"]): tuple(map(LaneId, row["lanes"])) for row in rows
    }


async def republish(connection: Connection, due: Collection[tuple[MessageId, int, int, datetime]]) -> None:
    """Give planned attempts a new `send_before` and note that they are published once more."""
    if not due:
        return
    columns = (list(column) for column in zip(*sorted(due), strict=True))
    await connection.execute(
        "UPDATE switchboard.attempts a SET send_before = asked.send_before, republished = true"
        " FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::timestamptz[])"
        " AS asked (message_id, step, submission, send_before)"
        " WHERE a.message_id = asked.message_id AND a.step = asked.step AND a.submission = asked.submission"
        " AND a.state = 'planned'",
        *columns,
    )


async def renew(
    connection: Connection, asked: Collection[tuple[MessageId, int, int, datetime]]
) -> dict[tuple[MessageId, int, int], datetime]:
    """Let attempts that are still planned be claimed until these times. Returns those that now may be."""
    if not asked:
        return {}
    columns = (list(column) for column in zip(*sorted(asked), strict=True))
    rows = await connection.fetch(
        "UPDATE switchboard.attempts a SET send_before = asked.send_before"
        " FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::timestamptz[])"
        " AS asked (message_id, step, submission, send_before)"
        " WHERE a.message_id = asked.message_id AND a.step = asked.step AND a.submission = asked.submission"
        " AND a.state = 'planned' AND a.send_before IS NOT NULL"
        " RETURNING a.message_id, a.step, a.submission, a.send_before",
        *columns,
    )
    return {(MessageId(row["message_id"]), row["step"], row["submission"]): row["send_before"] for row in rows}


def _change_values(change: Change) -> tuple[Any, ...]:
    seen, told = change.look.message.progress, change.told
    return (
        change.after.id, change.look.version, seen.step, seen.submission, change.look.attempt_version,
        *((None, None, None, None) if told is None else (told.at, told.kind, told.cause, encode_entry(told.entry))),
        *_progress_values(change.after.progress),
    )  # fmt: skip


def _progress_values(progress: Progress) -> tuple[Any, ...]:
    return (
        progress.phase, progress.status, progress.status_at,
        None if progress.reason is None else _encode(progress.reason),
        progress.step, progress.submission, progress.tries, progress.first_failed_at, _encode(progress.ledger),
        progress.expires_at, progress.ttl_ends_at, progress.step_due_at, progress.retry_at, progress.claim_due_at,
        progress.horizon_at, progress.next_due, progress.is_final, progress.final_at,
    )  # fmt: skip


def _message(row: asyncpg.Record, body: bytes | None) -> Message:
    progress = Progress(
        phase=Phase(row["phase"]),
        status=Status(row["status"]),
        status_at=row["status_at"],
        step=row["step"],
        submission=row["submission"],
        tries=row["tries"],
        reason=None if row["reason"] is None else _reason.decode(row["reason"]),
        first_failed_at=row["first_failed_at"],
        expires_at=row["expires_at"],
        ttl_ends_at=row["ttl_ends_at"],
        step_due_at=row["step_due_at"],
        retry_at=row["retry_at"],
        claim_due_at=row["claim_due_at"],
        horizon_at=row["horizon_at"],
        final_at=row["final_at"],
        ledger=Ledger() if row["ledger"] is None else _ledger.decode(row["ledger"]),
    )
    return Message(
        id=MessageId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        app_id=AppId(row["app_id"]),
        mode=ProcessingMode(row["mode"]),
        accepted_at=row["accepted_at"],
        high_priority=row["high_priority"],
        envelope=Envelope() if row["envelope"] is None else _envelope.decode(row["envelope"]),
        route=Route(()) if row["route"] is None else _route.decode(row["route"]),
        progress=progress,
        body=body,
        body_until=row["body_until"],
        contact_id=row["contact_id"],
        conversation_id=row["conversation_id"],
    )


def _current_attempt(row: asyncpg.Record) -> StoredAttempt:
    return _attempt(MessageId(row["id"]), row["step"], row["submission"], row)


def _attempt(message_id: MessageId, step: int, submission: int, row: asyncpg.Record) -> StoredAttempt:
    return StoredAttempt(
        message_id,
        step,
        submission,
        AttemptView(row["state"], row["claimed_at"], row["send_before"], row["republished"]),
        None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        row["finished_at"],
        tuple(map(LaneId, row["lanes"])),
    )
