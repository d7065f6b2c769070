"""Records what attempts came to, then tells: the outcome is in PostgreSQL before it is in Kafka (DESIGN 5)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from switchboard.bus import Outgoing, Producer, Transient
from switchboard.channel.contract import SendResult
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.crash import crash_point
from switchboard.identity import ChannelIdentity
from switchboard.ids import AccountKey, MessageId, attempt_id
from switchboard.reason import Reason
from switchboard.records import AttemptFinished, AttemptsRecord
from switchboard.store import timeline
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool
from switchboard.timeline import Entry, Happening, Kind
from switchboard.topics import ATTEMPTS
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.batching import Batcher
from switchboard_channel_adapter.receipts import Part, Receipts

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
#: Tries that failed for a reason other than database or broker, after which an outcome is given up.
_FAILURES: Final = 5

_LOCK: Final = """
SELECT a.message_id, a.step, a.submission, a.state, a.outcome
FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS asked (message_id, step, submission)
JOIN switchboard.attempts a USING (message_id, step, submission)
ORDER BY a.message_id, a.step, a.submission FOR UPDATE OF a
"""
_FINISH: Final = """
UPDATE switchboard.attempts a SET state = 'finished', finished_at = switchboard.now(), outcome = ended.outcome
FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::bytea[]) AS ended (message_id, step, submission, outcome)
WHERE a.message_id = ended.message_id AND a.step = ended.step AND a.submission = ended.submission
"""
_NAME: Final = """
INSERT INTO switchboard.provider_ids (account, provider_id, message_id, step, submission, part, identity)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::smallint[], $7::text[])
ON CONFLICT DO NOTHING
"""


class Ended(Struct, frozen=True):
    """An attempt that came to something."""

    message_id: MessageId
    step: int
    submission: int
    account: AccountKey
    identity: ChannelIdentity
    result: SendResult
    #: It was never claimed: it ends only if it is still planned, and only then it is told.
    was_planned: bool = False


class Recorder:
    """Writes outcomes in batches: rows, provider ids and timeline in one transaction; then receipts; then Kafka."""

    def __init__(self, pool: Pool, producer: Producer, receipts: Receipts, *, topic_prefix: str) -> None:
        self._pool = pool
        self._producer = producer
        self._receipts = receipts
        self._topic = ATTEMPTS.name(topic_prefix)
        self._batcher: Batcher[Ended, bool] = Batcher(self._record)
        self._stopping = asyncio.Event()

    async def record(self, ended: Ended) -> bool:
        """Record once and tell. Returns whether the attempt ended by this.

        Raises what the database or the broker raises; what was recorded and not told is found by the router.
        """
        return await self._batcher.submit(ended)

    async def record_whatever_it_takes(self, ended: Ended) -> None:
        """Record and tell, however long database and broker are away.

        Gives up when the process stops, and on an outcome that cannot be stored at all. Then, as after a crash, the
        router finds the claimed attempt without an outcome and calls it unknown.
        """
        pause, failures = _FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                await self.record(ended)
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, the outcome must not be lost
                failures += not isinstance(error, (Transient, *TRANSIENT_ERRORS))
                if failures >= _FAILURES:
                    log.error("an outcome cannot be stored", attempt=_name(ended), error=type(error).__name__)
                    return
                log.warning(
                    "an outcome cannot be recorded yet", error=type(error).__name__, channel=ended.identity.channel
                )
            if self._stopping.is_set():
                log.error("an outcome was not recorded before the stop", attempt=_name(ended))
                return
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """From now on each outcome gets one more try."""
        self._stopping.set()

    async def _record(self, batch: Sequence[Ended]) -> list[bool]:
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                states = await _lock(connection, batch)
                told = [_is_told(ended, states.get(_key(ended), _MISSING)) for ended in batch]
                published = [ended for ended, tell in zip(batch, told, strict=True) if tell]
                # Seen again because the broker was away: all is written, only not told.
                first = [e for e in published if states.get(_key(e), _MISSING).outcome != _encoded(e)]
                await _finish(connection, first)
                await _name_parts(connection, first)
                now: datetime = await connection.fetchval("SELECT switchboard.now()")
                await timeline.write(connection, [_happening(ended, now) for ended in first])
            parts = [part for ended in published for part in _parts(ended)]
            matched = await self._receipts.waiting_for(connection, parts)
        records: list[AttemptsRecord] = [_finished(ended, now) for ended in published]
        await self._publish([*records, *(match.record for match in matched)])
        crash_point("adapter.after_publish")
        await self._receipts.forget(matched)
        for ended in published:
            _count(ended)
        return told

    async def _publish(self, records: Sequence[AttemptsRecord]) -> None:
        await self._producer.publish(
            [
                Outgoing(
                    self._topic,
                    record.message_id.encode(),
                    ATTEMPTS.encode(record),
                    ATTEMPTS.headers(record),
                )
                for record in records
            ]
        )


class _State(Struct, frozen=True):
    state: str
    outcome: bytes | None


_MISSING: Final = _State("", None)


def _is_told(ended: Ended, row: _State) -> bool:
    # What was submitted is told whatever became of the row meanwhile: only the router can judge it.
    return not ended.was_planned or row.state == "planned" or row.outcome == _encoded(ended)


async def _lock(connection: Connection, batch: Sequence[Ended]) -> dict[tuple[MessageId, int, int], _State]:
    rows = await connection.fetch(_LOCK, *_columns([_key(ended) for ended in batch]))
    return {(row["message_id"], row["step"], row["submission"]): _State(row["state"], row["outcome"]) for row in rows}


async def _finish(connection: Connection, batch: Sequence[Ended]) -> None:
    if batch:
        await connection.execute(_FINISH, *_columns([(*_key(ended), _encoded(ended)) for ended in batch]))


async def _name_parts(connection: Connection, batch: Sequence[Ended]) -> None:
    rows = [
        (part.account, part.provider_id, part.message_id, part.step, part.submission, number, part.identity)
        for ended in batch
        for number, part in enumerate(_parts(ended), start=1)
    ]
    if rows:
        await connection.execute(_NAME, *_columns(rows))


def _parts(ended: Ended) -> list[Part]:
    return [
        Part(ended.account, provider_id, ended.identity.identity, *_key(ended))
        for provider_id in _provider_ids(ended.result.outcome)
    ]


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _encoded(ended: Ended) -> bytes:
    return msgspec.json.encode(ended.result.outcome)


def _provider_ids(outcome: Outcome) -> tuple[str, ...]:
    match outcome:
        case Accepted(ids) | PartlyAccepted(ids) | Unknown(provider_ids=ids):
            return ids
        case Rejected() | FailedForNow():
            return ()


def _reason(outcome: Outcome) -> Reason | None:
    return None if isinstance(outcome, Accepted) else outcome.reason


def _happening(ended: Ended, now: datetime) -> Happening:
    exchanges = ended.result.exchanges
    entry = Entry(
        note=outcome_name(ended.result.outcome),
        channel=ended.identity.channel,
        step=ended.step,
        submission=ended.submission,
        reason=_reason(ended.result.outcome),
        started_at=exchanges[0].started_at if exchanges else None,
        exchanges=exchanges,
    )
    return Happening(ended.message_id, now, Kind.SUBMITTED, f"submitted {ended.step}.{ended.submission}", entry)


def _finished(ended: Ended, now: datetime) -> AttemptFinished:
    return AttemptFinished(ended.message_id, ended.step, ended.submission, ended.result.outcome, now)


def outcome_name(outcome: Outcome) -> str:
    """The outcome in a word, for timelines and metrics."""
    match outcome:
        case Accepted():
            return "accepted"
        case PartlyAccepted():
            return "partly_accepted"
        case Rejected():
            return "rejected"
        case FailedForNow(throttled=throttled):
            return "throttled" if throttled else "failed_for_now"
        case Unknown():
            return "unknown"


def _count(ended: Ended) -> None:
    outcome = ended.result.outcome
    metrics.outcomes.labels(ended.identity.channel, outcome_name(outcome)).inc()
    if isinstance(outcome, Rejected) and outcome.misconfigured:
        metrics.misconfigured.labels(ended.identity.channel).inc()
        log.error(
            "the provider refuses our credentials or sender",
            channel=ended.identity.channel, account=ended.account, reason=outcome.reason.code,
        )  # fmt: skip


def _key(ended: Ended) -> tuple[MessageId, int, int]:
    return ended.message_id, ended.step, ended.submission


def _name(ended: Ended) -> str:
    return attempt_id(*_key(ended))
