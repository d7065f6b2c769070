"""Records what attempts came to, then tells: the outcome is in PostgreSQL before it is in Kafka (DESIGN 5)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

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
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard.store.writes import Writes, columns_of
from switchboard.timeline import Entry, Kind, encode_entry
from switchboard.topics import ATTEMPTS
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.batching import Batcher
from switchboard_channel_adapter.receipts import Part, Receipts

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
#: Tries that failed for a reason other than database or broker, after which an outcome is given up.
_FAILURES: Final = 5

# What was recorded before stays as it is, and an attempt that was never claimed ends only if it is still planned. Rows
# are locked in the order of their ids; `place` numbers the attempts of the batch from 1.
_LOCKED: Final = """
SELECT ended.place, a.state, a.outcome
FROM unnest($1::text[], $2::smallint[], $3::integer[])
     WITH ORDINALITY AS ended (message_id, step, submission, place)
JOIN switchboard.attempts a USING (message_id, step, submission)
ORDER BY a.message_id, a.step, a.submission FOR UPDATE OF a
"""
_FOUND: Final = """
SELECT clock.now, locked.place, locked.state, locked.outcome
FROM (SELECT switchboard.now() AS now OFFSET 0) AS clock LEFT JOIN locked ON true
"""
_NEWS: Final = """
SELECT ended.*, clock.now
FROM (SELECT now FROM found LIMIT 1) AS clock
CROSS JOIN unnest($1::text[], $2::smallint[], $3::integer[], $4::bytea[], $5::boolean[])
     WITH ORDINALITY AS ended (message_id, step, submission, outcome, was_planned, place)
LEFT JOIN found ON found.place = ended.place
WHERE found.outcome IS DISTINCT FROM ended.outcome AND (NOT ended.was_planned OR found.state = 'planned')
"""
_FINISH: Final = """
UPDATE switchboard.attempts a SET state = 'finished', finished_at = news.now, outcome = news.outcome
FROM news WHERE a.message_id = news.message_id AND a.step = news.step AND a.submission = news.submission
"""
_NAME: Final = """
INSERT INTO switchboard.provider_ids (account, provider_id, message_id, step, submission, part, identity)
SELECT part.account, part.provider_id, news.message_id, news.step, news.submission, part.number, part.identity
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::text[])
     AS part (place, account, provider_id, number, identity)
JOIN news USING (place)
ON CONFLICT DO NOTHING
"""
_TELL: Final = """
INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)
SELECT news.message_id, news.now, $2, told.cause, told.entry
FROM unnest($1::bigint[], $3::text[], $4::bytea[]) AS told (place, cause, entry)
JOIN news USING (place) ORDER BY place
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
    """Writes outcomes in batches: rows, provider ids and timeline in one statement; then receipts; then Kafka."""

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
        rows = await _writes(batch).execute(self._pool, returning="found")
        now: datetime = rows[0]["now"]
        states = {row["place"]: _State(row["state"], row["outcome"]) for row in rows}
        told = [_is_told(ended, states.get(place, _MISSING)) for place, ended in enumerate(batch, start=1)]
        published = [ended for ended, tell in zip(batch, told, strict=True) if tell]
        # Only now, when the provider ids are committed, is it certain that one side finds the other.
        matched = await self._receipts.waiting_for([part for ended in published for part in _parts(ended)])
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


def _writes(batch: Sequence[Ended]) -> Writes:
    """Outcomes, provider ids and timeline of attempts of which this is news; `found` says what their rows were."""
    places = range(1, len(batch) + 1)
    keys = columns_of([_key(ended) for ended in batch])
    writes = Writes()
    writes.add("locked", _LOCKED, *keys)
    writes.add("found", _FOUND)
    writes.add("news", _NEWS, *keys, [_encoded(ended) for ended in batch], [ended.was_planned for ended in batch])
    writes.add("finished", _FINISH)
    parts = [
        (place, part.account, part.provider_id, number, part.identity)
        for place, ended in zip(places, batch, strict=True)
        for number, part in enumerate(_parts(ended), start=1)
    ]
    if parts:
        writes.add("named", _NAME, *columns_of(parts))
    causes = [f"submitted {ended.step}.{ended.submission}" for ended in batch]
    entries = [encode_entry(_entry(ended)) for ended in batch]
    writes.add("told", _TELL, list(places), Kind.SUBMITTED, causes, entries)
    return writes


def _parts(ended: Ended) -> list[Part]:
    return [
        Part(ended.account, provider_id, ended.identity.identity, *_key(ended))
        for provider_id in _provider_ids(ended.result.outcome)
    ]


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


def _entry(ended: Ended) -> Entry:
    exchanges = ended.result.exchanges
    return Entry(
        note=outcome_name(ended.result.outcome),
        channel=ended.identity.channel,
        step=ended.step,
        submission=ended.submission,
        reason=_reason(ended.result.outcome),
        started_at=exchanges[0].started_at if exchanges else None,
        exchanges=exchanges,
    )


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
