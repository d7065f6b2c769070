"""The evidence of a fault test: what clients were told, what the world outside saw, what the database says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct

from switchboard.channel.outcome import Outcome
from switchboard.ids import CallbackId, MessageId
from switchboard.reason import Reason
from switchboard.rules.progress import Ledger
from switchboard.store.timeline import Moment
from switchboard.timeline import Kind, decode_entry
from switchboard.trigger import Trigger
from switchboard_simulator.journal import Callback, Submission, read_lines

#: What every text of a fault test holds, so that each of its parts names its message on the wire.
MARK: Final = re.compile(r"n[0-9a-f]{8}-[0-9]{6}x")


class Sent(Struct, frozen=True, kw_only=True):
    """One message that a client asked for, and was told 2xx."""

    message_id: MessageId
    mark: str
    #: When the 2xx came.
    at: datetime
    #: The recipient as addressed, in the order of the channels asked for.
    to: tuple[tuple[str, str], ...]
    high_priority: bool = False
    #: Statuses it may end with; empty: any. One with an unknown outcome may also end as FAILED.
    may_end: frozenset[str] = frozenset()
    #: Every id that a 2xx for its key carried: more than one is a message accepted twice.
    told: frozenset[str] = frozenset()


class Said(Struct, frozen=True, kw_only=True):
    """What a person wrote to the app, and the provider took for us."""

    mark: str
    channel: str
    at: datetime


class MessageRow(Struct, frozen=True, kw_only=True):
    """A message to a contact, as the database has it."""

    id: MessageId
    app_id: str
    phase: str
    status: str
    step: int
    final: bool
    high_priority: bool
    reason: Reason | None
    ledger: Ledger
    #: The mark in its content; "" where it has none, or none any more.
    mark: str


class AttemptRow(Struct, frozen=True, kw_only=True):
    """An attempt, as the database has it."""

    message_id: MessageId
    step: int
    submission: int
    channel: str
    identity: str
    state: str
    claimed_at: datetime | None
    outcome: Outcome | None


class EventRow(Struct, frozen=True, kw_only=True):
    """A callback for one endpoint, as callback-delivery has it."""

    id: CallbackId
    webhook_id: str
    target: str
    trigger: str
    stream: str
    sequence: int
    state: str
    passed: bool
    attempts: int


class Evidence(Struct, frozen=True, kw_only=True, dict=True):
    """Everything there is to judge by. Logs are in the order they were written."""

    sent: Sequence[Sent] = ()
    said: Sequence[Said] = ()
    submissions: Sequence[Submission] = ()
    callbacks: Sequence[Callback] = ()
    messages: Mapping[MessageId, MessageRow] = {}
    attempts: Sequence[AttemptRow] = ()
    timeline: Mapping[MessageId, Sequence[Moment]] = {}
    events: Mapping[CallbackId, EventRow] = {}
    #: The webhooks that ask for every trigger.
    webhook_ids: Sequence[str] = ()

    @cached_property
    def by_mark(self) -> Mapping[str, MessageId]:
        """Which message a mark means."""
        stored = {row.mark: row.id for row in self.messages.values() if row.mark}
        return {**stored, **{sent.mark: sent.message_id for sent in self.sent}}

    @cached_property
    def submitted(self) -> Mapping[MessageId, Sequence[tuple[int, Submission]]]:
        """What providers saw of each message, with its place in the log."""
        found: dict[MessageId, list[tuple[int, Submission]]] = defaultdict(list)
        for place, line in enumerate(self.submissions):
            for mark in dict.fromkeys(MARK.findall(line.text)):
                if mark in self.by_mark:
                    found[self.by_mark[mark]].append((place, line))
        return found

    @cached_property
    def tried(self) -> Mapping[MessageId, Sequence[AttemptRow]]:
        """Each message's attempts, in order."""
        found: dict[MessageId, list[AttemptRow]] = defaultdict(list)
        for row in sorted(self.attempts, key=lambda row: (row.message_id, row.step, row.submission)):
            found[row.message_id].append(row)
        return found

    @cached_property
    def heard(self) -> Mapping[str, set[CallbackId]]:
        """The callback events by which the app heard each mark that a person wrote."""
        found: dict[str, set[CallbackId]] = defaultdict(set)
        for event, (_, line) in self.taken.items():
            if line.headers.get("switchboard-trigger") == Trigger.MESSAGE_INBOUND:
                for mark in MARK.findall(line.body):
                    found[mark].add(event)
        return found

    @cached_property
    def taken(self) -> Mapping[CallbackId, tuple[int, Callback]]:
        """The first time each callback event was signed right and answered 2xx, with its place in the log."""
        found: dict[CallbackId, tuple[int, Callback]] = {}
        for place, line in enumerate(self.callbacks):
            if line.signature == "valid" and line.status is not None and 200 <= line.status < 300:
                found.setdefault(event_of(line), (place, line))
        return found


def event_of(line: Callback) -> CallbackId:
    """Which callback event a line of the receiver's log is about."""
    return CallbackId(line.headers.get("webhook-id", ""))


def read_log(path: Path, kind: type[Any]) -> list[Any]:
    """The lines of one of the simulator's logs."""
    return [msgspec.convert(line, kind) for line in read_lines(path)] if path.exists() else []


_ledger: Final = msgspec.json.Decoder(Ledger)
_reason: Final = msgspec.json.Decoder(Reason)
_outcome: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)


async def read_database(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, Any]:
    """The database's part of the evidence, as arguments of `Evidence`. Reads everything: for tests alone."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        messages = await connection.fetch("SELECT * FROM switchboard.messages WHERE direction = 'TO_CONTACT'")
        attempts = await connection.fetch("SELECT * FROM switchboard.attempts")
        moments = await connection.fetch("SELECT * FROM switchboard.timeline ORDER BY number")
        events = await connection.fetch("SELECT * FROM switchboard.callback_events")
    return {
        "messages": {row["id"]: _message(row) for row in messages},
        "attempts": [_attempt(row) for row in attempts],
        "timeline": _by_message(moments),
        "events": {row["id"]: EventRow(**{name: row[name] for name in EventRow.__struct_fields__}) for row in events},
    }


def _message(row: asyncpg.Record) -> MessageRow:
    found = MARK.search((row["body"] or b"").decode())
    return MessageRow(
        id=row["id"],
        app_id=row["app_id"],
        phase=row["phase"],
        status=row["status"],
        step=row["step"],
        final=row["final"],
        high_priority=row["high_priority"],
        reason=None if row["reason"] is None else _reason.decode(row["reason"]),
        ledger=Ledger() if row["ledger"] is None else _ledger.decode(row["ledger"]),
        mark=found[0] if found else "",
    )


def _attempt(row: asyncpg.Record) -> AttemptRow:
    return AttemptRow(
        message_id=row["message_id"],
        step=row["step"],
        submission=row["submission"],
        channel=row["channel"],
        identity=row["identity"],
        state=row["state"],
        claimed_at=row["claimed_at"],
        outcome=None if row["outcome"] is None else _outcome.decode(row["outcome"]),
    )


def _by_message(rows: Iterable[asyncpg.Record]) -> dict[MessageId, list[Moment]]:
    found: dict[MessageId, list[Moment]] = defaultdict(list)
    for row in rows:
        moment = Moment(row["number"], row["at"], Kind(row["kind"]), row["cause"], decode_entry(row["entry"]))
        found[MessageId(row["message_id"])].append(moment)
    return found
