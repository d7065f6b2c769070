"""Records what attempts came to, then tells: the outcome is in PostgreSQL before it is in Kafka (DESIGN 5)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
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
from switchboard.store.group_commit import GroupCommit
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard.store.writes import Writes, columns_of
from switchboard.timeline import Entry, Kind, encode_entry
from switchboard.topics import ATTEMPTS
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.receipts import Part, Receipts

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
#: Tries that failed for a reason other than database or broker, after which an outcome is given up.
_FAILURES: Final = 5

# What was recorded before stays as it is, and an attempt that was never claimed ends only if it is still planned. The
# batch is in the order of its ids, and so are the locks.
_FOUND: Final = """
SELECT ended.*, a.state, a.outcome AS recorded, clock.now
FROM (SELECT switchboard.now() AS now OFFSET 0) AS clock
CROSS JOIN unnest($1::text[], $2::smallint[], $3::integer[], $4::bytea[], $5::boolean[], $6::text[], $7::text[],
                  $8::text[], $9::bytea[])
     WITH ORDINALITY AS ended (message_id, step, submission, outcome, was_planned, account, identity, provider_ids,
                               entry, place)
LEFT JOIN LATERAL (
    SELECT state, outcome FROM switchboard.attempts
    WHERE message_id = ended.message_id AND step = ended.step AND submission = ended.submission FOR UPDATE
) AS a ON true
"""
_NEWS: Final = """
SELECT * FROM found WHERE recorded IS DISTINCT FROM outcome AND (NOT was_planned OR state = 'planned')
"""
_FINISH: Final = """
UPDATE switchboard.attempts a SET state = 'finished', finished_at = news.now, outcome = news.outcome
FROM news WHERE a.message_id = news.message_id AND a.step = news.step AND a.submission = news.submission
"""
_NAME: Final = """
INSERT INTO switchboard.provider_ids (account, provider_id, message_id, step, submission, part, identity)
SELECT news.account, part.provider_id, news.message_id, news.step, news.submission, part.number, news.identity
FROM news CROSS JOIN LATERAL unnest(string_to_array(news.provider_ids, chr(31)))
     WITH ORDINALITY AS part (provider_id, number)
WHERE news.provider_ids <> ''
ON CONFLICT DO NOTHING
"""
_TELL: Final = """
INSERT INTO switchboard.timeline (message_id, at, kind, cause, entry)
SELECT message_id, now, $1, 'submitted ' || step || '.' || submission, entry FROM news
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
        self._group: GroupCommit[Ended, bool] = GroupCommit(self._record, transient=(Transient, *TRANSIENT_ERRORS))
        self._stopping = asyncio.Event()

    async def record(self, ended: Ended) -> bool:
        """Record once and tell. Returns whether the attempt ended by this.

        Raises what the database or the broker raises; what was recorded and not told is found by the router.
        """
        return await self._group.submit(ended)

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
        order = sorted(range(len(batch)), key=lambda number: _key(batch[number]))
        rows = await _writes([batch[number] for number in order]).execute(self._pool, returning="found")
        found = {order[row["place"] - 1]: row for row in rows}
        told = [_is_told(ended, found[number]) for number, ended in enumerate(batch)]
        published = [ended for ended, tell in zip(batch, told, strict=True) if tell]
        now: datetime = rows[0]["now"]
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


def _is_told(ended: Ended, row: asyncpg.Record) -> bool:
    # What was submitted is told whatever became of the row meanwhile: only the router can judge it.
    return not ended.was_planned or row["state"] == "planned" or row["recorded"] == row["outcome"]


def _writes(batch: Sequence[Ended]) -> Writes:
    """Outcomes, provider ids and timeline of attempts of which this is news; `found` says what their rows were."""
    rows = [
        (
            *_key(ended), _encoded(ended), ended.was_planned, ended.account, ended.identity.identity,
            "\x1f".join(_provider_ids(ended.result.outcome)), encode_entry(_entry(ended)),
        )
        for ended in batch
    ]  # fmt: skip
    writes = Writes()
    writes.add("found", _FOUND, *columns_of(rows))
    writes.add("news", _NEWS)
    writes.add("finished", _FINISH)
    writes.add("named", _NAME)
    writes.add("told", _TELL, Kind.SUBMITTED)
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
