"""Messages to contacts and their attempts: read and written in batches, locked in one order (DESIGN 5).

The order everywhere is contacts, lanes, conversations, messages, attempts, each by id (`store.contacts`).
Nothing here decides: it stores what the rules decided.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
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


_encode: Final = msgspec.json.Encoder().encode
_content: Final = msgspec.json.Decoder(AppMessage)
_envelope: Final = msgspec.json.Decoder(Envelope)
_route: Final = msgspec.json.Decoder(Route)
_ledger: Final = msgspec.json.Decoder(Ledger)
_reason: Final = msgspec.json.Decoder(Reason)
_outcome: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)

_IDENTITY_COLUMNS: Final = (
    "id", "project_id", "app_id", "direction", "mode", "accepted_at", "channel", "identity",
    "envelope", "body", "body_until", "route", "high_priority", "contact_id", "conversation_id",
)  # fmt: skip
#: The mutable columns of a row, in the order `_progress_values` gives them, with their types for unnest.
_PROGRESS_COLUMNS: Final = {
    "phase": "text", "status": "text", "status_at": "timestamptz", "reason": "bytea", "step": "smallint",
    "submission": "integer", "tries": "integer", "first_failed_at": "timestamptz", "ledger": "bytea",
    "expires_at": "timestamptz", "ttl_ends_at": "timestamptz", "step_due_at": "timestamptz",
    "retry_at": "timestamptz", "claim_due_at": "timestamptz", "horizon_at": "timestamptz",
    "next_due": "timestamptz", "final": "boolean", "final_at": "timestamptz",
}  # fmt: skip
_UPDATE: Final = (
    f"UPDATE switchboard.messages m SET {', '.join(f'{name} = new.{name}' for name in _PROGRESS_COLUMNS)}"
    f" FROM unnest($1::text[], {', '.join(f'${n}::{kind}[]' for n, kind in enumerate(_PROGRESS_COLUMNS.values(), 2))})"
    f" AS new (id, {', '.join(_PROGRESS_COLUMNS)}) WHERE m.id = new.id"
)
_FIXED: Final = (
    "id, project_id, app_id, mode, accepted_at, high_priority, envelope, route, body_until, contact_id, conversation_id"
)
_SELECT: Final = f"SELECT {_FIXED}, {', '.join(_PROGRESS_COLUMNS)} FROM switchboard.messages"


async def database_now(connection: Connection) -> datetime:
    """The database's time: what rules and deadlines are measured by."""
    now: datetime = await connection.fetchval("SELECT switchboard.now()")
    return now


async def known(connection: Connection, ids: Collection[MessageId]) -> set[MessageId]:
    """Which of these messages have a row."""
    rows = await connection.fetch("SELECT id FROM switchboard.messages WHERE id = ANY($1::text[])", list(ids))
    return {MessageId(row["id"]) for row in rows}


async def insert(connection: Connection, messages: Sequence[Message]) -> None:
    """Insert new messages. Raises UniqueViolationError if another router has just planned one of them."""
    records = []
    for message in messages:
        identity = message.identity
        records.append(
            (
                message.id, message.project_id, message.app_id, "TO_CONTACT", message.mode, message.accepted_at,
                identity.channel if identity else "", identity.identity if identity else "",
                _encode(message.envelope), message.body, message.body_until, _encode(message.route),
                message.high_priority, message.contact_id, message.conversation_id,
                *_progress_values(message.progress),
            )
        )  # fmt: skip
    if records:
        await connection.copy_records_to_table(
            "messages", records=records, columns=(*_IDENTITY_COLUMNS, *_PROGRESS_COLUMNS), schema_name="switchboard"
        )


async def read(connection: Connection, ids: Collection[MessageId], *, body: bool = False) -> dict[MessageId, Message]:
    """The messages that have a row, unlocked; with their content if asked for."""
    columns = _SELECT.replace(" FROM", ", body FROM", 1) if body else _SELECT
    rows = await connection.fetch(f"{columns} WHERE id = ANY($1::text[]) AND direction = 'TO_CONTACT'", sorted(ids))
    return {MessageId(row["id"]): _message(row, row["body"] if body else None) for row in rows}


async def lock(connection: Connection, ids: Collection[MessageId]) -> dict[MessageId, Message]:
    """The messages that have a row, locked in the order of their ids, without their content."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE id = ANY($1::text[]) AND direction = 'TO_CONTACT' ORDER BY id FOR UPDATE", sorted(ids)
    )
    return {MessageId(row["id"]): _message(row, None) for row in rows}


async def bodies(connection: Connection, ids: Collection[MessageId]) -> dict[MessageId, bytes | None]:
    """The stored contents of messages; None where purged."""
    if not ids:
        return {}
    rows = await connection.fetch("SELECT id, body FROM switchboard.messages WHERE id = ANY($1::text[])", sorted(ids))
    return {MessageId(row["id"]): row["body"] for row in rows}


async def save(connection: Connection, changed: Iterable[Message]) -> None:
    """Write the progress of messages that are locked."""
    rows = [(message.id, *_progress_values(message.progress)) for message in changed]
    if rows:
        await connection.execute(_UPDATE, *(list(column) for column in zip(*rows, strict=True)))


async def insert_attempts(connection: Connection, attempts: Sequence[PlannedAttempt]) -> None:
    """Insert planned attempts of messages that are locked or new."""
    records = [
        (
            attempt.message_id, attempt.step, attempt.submission, attempt.app_id, attempt.account,
            attempt.identity.channel, attempt.identity.identity, "planned", attempt.send_before, list(attempt.lanes),
        )
        for attempt in attempts
    ]  # fmt: skip
    if records:
        await connection.copy_records_to_table(
            "attempts",
            records=records,
            columns=("message_id", "step", "submission", "app_id", "account", "channel", "identity", "state",
                     "send_before", "lanes"),
            schema_name="switchboard",
        )  # fmt: skip


async def lock_attempts(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]]
) -> dict[tuple[MessageId, int, int], StoredAttempt]:
    """The named attempts' rows, locked in the order of their ids."""
    return await _read_attempts(connection, keys, " FOR UPDATE OF a")


async def read_attempts(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]]
) -> dict[tuple[MessageId, int, int], StoredAttempt]:
    """The named attempts' rows, unlocked."""
    return await _read_attempts(connection, keys, "")


async def _read_attempts(
    connection: Connection, keys: Collection[tuple[MessageId, int, int]], locking: str
) -> dict[tuple[MessageId, int, int], StoredAttempt]:
    if not keys:
        return {}
    ids, steps, submissions = (list(column) for column in zip(*sorted(keys), strict=True))
    rows = await connection.fetch(
        "SELECT a.message_id, a.step, a.submission, a.state, a.send_before, a.republished, a.claimed_at, a.outcome,"
        " a.finished_at, a.lanes FROM switchboard.attempts a"
        " JOIN unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)"
        " USING (message_id, step, submission)"
        f" ORDER BY a.message_id, a.step, a.submission{locking}",
        ids,
        steps,
        submissions,
    )
    return {(MessageId(row["message_id"]), row["step"], row["submission"]): _attempt(row) for row in rows}


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


def _attempt(row: asyncpg.Record) -> StoredAttempt:
    return StoredAttempt(
        MessageId(row["message_id"]),
        row["step"],
        row["submission"],
        AttemptView(row["state"], row["claimed_at"], row["send_before"], row["republished"]),
        None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        row["finished_at"],
        tuple(map(LaneId, row["lanes"])),
    )
