"""Receipts meet outcomes (DESIGN 5): each side writes its row, commits, then looks for the other's.

Whoever finds both publishes; if both do, the router raises nothing twice. A waiting receipt is deleted only after it
was published.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.bus import Outgoing, Producer, Transient
from switchboard.channel.contract import ReceiptFact
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, MessageId, parse_attempt_id
from switchboard.records import ReceiptReceived
from switchboard.store.group_commit import GroupCommit
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool
from switchboard.store.writes import columns_of
from switchboard.topics import ATTEMPTS
from switchboard_channel_adapter import metrics

# The newest message wins: providers use an id again after days. Of its parts, the one with the likeliest spelling.
_FIND: Final = """
SELECT asked.number, p.provider_id, p.message_id, p.step, p.submission
FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[])
     WITH ORDINALITY AS asked (number, account, alias, identity, place)
JOIN switchboard.provider_ids p ON p.account = asked.account AND p.provider_id = asked.alias
WHERE asked.identity = '' OR asked.identity = p.identity
ORDER BY asked.number, p.message_id, asked.place DESC
"""
_KEEP: Final = """
INSERT INTO switchboard.receipts (account, provider_id, status, aliases, fact, received_at)
SELECT account, provider_id, status, string_to_array(aliases, chr(31)), fact, switchboard.now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
     AS heard (account, provider_id, status, aliases, fact)
ORDER BY account, provider_id, status
ON CONFLICT DO NOTHING
"""
_WAITING: Final = """
SELECT r.account, r.provider_id, r.status, r.aliases, r.fact
FROM switchboard.receipts_called($2::text[]) r
WHERE r.account = ANY($1::text[])
"""
# Both rows are there and neither side found the other: it died between its commit and its look.
_MISSED: Final = """
SELECT r.account, r.provider_id, r.status, r.fact, p.provider_id AS alias, p.message_id, p.step, p.submission
FROM switchboard.receipts r CROSS JOIN LATERAL (
    SELECT * FROM switchboard.provider_ids
    WHERE account = r.account AND provider_id = ANY(r.aliases) ORDER BY message_id DESC LIMIT 1
) AS p
WHERE r.received_at < switchboard.now() - make_interval(secs => $1)
  AND r.received_at > switchboard.now() - make_interval(secs => $2)
  AND COALESCE(convert_from(r.fact, 'UTF8')::jsonb ->> 'identity', '') IN ('', p.identity)
ORDER BY r.received_at LIMIT 500
"""
_FORGET: Final = """
DELETE FROM switchboard.receipts r
USING unnest($1::text[], $2::text[], $3::text[]) AS met (account, provider_id, status)
WHERE r.account = met.account AND r.provider_id = met.provider_id AND r.status = met.status
"""

_MISSED_AFTER_SECONDS: Final = 5
_MISSED_WITHIN_SECONDS: Final = 3600

_fact: Final = msgspec.json.Decoder(ReceiptFact)


class Part(Struct, frozen=True):
    """A part that a provider took: whose receipts may come, or may be here already."""

    account: AccountKey
    provider_id: str
    #: Whom it was sent to.
    identity: str
    message_id: MessageId
    step: int
    submission: int


class Heard(Struct, frozen=True):
    """A receipt as it came in."""

    channel: ChannelName
    account: AccountKey
    fact: ReceiptFact


class Met(Struct, frozen=True):
    """A receipt and the attempt it is about. `row` is where it waits, if it does."""

    record: ReceiptReceived
    row: tuple[AccountKey, str, str]


class Receipts:
    """Takes receipts in batches and finds their attempts."""

    def __init__(self, pool: Pool, producer: Producer, *, topic_prefix: str) -> None:
        self._pool = pool
        self._producer = producer
        self._topic = ATTEMPTS.name(topic_prefix)
        self._group: GroupCommit[Heard, None] = GroupCommit(self._take, transient=(Transient, *TRANSIENT_ERRORS))

    async def take(self, heard: Heard) -> None:
        """Publish the receipt, or keep it until its outcome comes. Returns when either is durable."""
        await self._group.submit(heard)

    async def waiting_for(self, parts: Sequence[Part]) -> list[Met]:
        """The receipts that wait for these parts, whose provider ids are committed."""
        if not parts:
            return []
        owners = {(part.account, part.provider_id): part for part in parts}
        accounts = list({account for account, _ in owners})
        rows = await self._pool.fetch(_WAITING, accounts, [provider_id for _, provider_id in owners])
        found = []
        for row in rows:
            fact = _fact.decode(row["fact"])
            for alias in row["aliases"]:
                part = owners.get((row["account"], alias))
                if part and fact.identity in ("", part.identity):
                    record = _record(fact, alias, part.message_id, part.step, part.submission)
                    found.append(Met(record, (row["account"], row["provider_id"], row["status"])))
                    break
        return found

    async def meet_missed(self) -> int:
        """Publish receipts that have met their outcome without anybody seeing it. Returns how many.

        Their writers have had time to see it themselves; what has been there for long is left to the message's timers.
        """
        rows = await self._pool.fetch(_MISSED, _MISSED_AFTER_SECONDS, _MISSED_WITHIN_SECONDS)
        met = [
            Met(
                _record(_fact.decode(row["fact"]), row["alias"], row["message_id"], row["step"], row["submission"]),
                (row["account"], row["provider_id"], row["status"]),
            )
            for row in rows
        ]
        await self._publish(one.record for one in met)
        await self.forget(met)
        return len(met)

    async def forget(self, met: Sequence[Met]) -> None:
        """Delete waiting receipts that were published."""
        if met:
            await self._pool.execute(_FORGET, *columns_of([one.row for one in met]))

    async def _take(self, batch: Sequence[Heard]) -> list[None]:
        async with self._pool.acquire() as connection:
            found = await _find(connection, batch)
            missing = [(number, heard) for number, heard in enumerate(batch) if number not in found]
            if missing:
                # Committed by itself, so that an outcome recorded meanwhile sees it or is seen by the second look.
                await _keep(connection, [heard for _, heard in missing])
                late = await _find(connection, [heard for _, heard in missing])
            else:
                late = {}
        met_late = {missing[index][0]: record for index, record in late.items()}
        found.update(met_late)
        await self._publish(found[number] for number in sorted(found))
        await self.forget([Met(record, _row(batch[number])) for number, record in met_late.items()])
        for number, heard in missing:
            if number not in met_late:
                metrics.receipts_waiting.labels(heard.channel).inc()
        return [None] * len(batch)

    async def _publish(self, records: Iterable[ReceiptReceived]) -> None:
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


async def _find(connection: Connection, batch: Sequence[Heard]) -> dict[int, ReceiptReceived]:
    found: dict[int, ReceiptReceived] = {}
    asked = []
    for number, heard in enumerate(batch):
        if heard.fact.attempt_id is not None:
            # The provider echoes our own id: nothing to look up.
            attempt = parse_attempt_id(heard.fact.attempt_id)
            found[number] = _record(heard.fact, heard.fact.provider_ids[0], *attempt)
        else:
            fact = heard.fact
            asked += [(number, heard.account, alias, fact.identity) for alias in dict.fromkeys(fact.provider_ids)]
    if asked:
        rows = await connection.fetch(_FIND, *columns_of(asked))
        for row in rows:
            fact = batch[row["number"]].fact
            found[row["number"]] = _record(fact, row["provider_id"], row["message_id"], row["step"], row["submission"])
    return found


async def _keep(connection: Connection, batch: Sequence[Heard]) -> None:
    rows = [(*_row(heard), "\x1f".join(heard.fact.provider_ids), msgspec.json.encode(heard.fact)) for heard in batch]
    await connection.execute(_KEEP, *columns_of(rows))


def _row(heard: Heard) -> tuple[AccountKey, str, str]:
    return heard.account, heard.fact.provider_ids[0], heard.fact.status


def _record(fact: ReceiptFact, provider_id: str, message_id: MessageId, step: int, submission: int) -> ReceiptReceived:
    return ReceiptReceived(
        message_id, step, submission, provider_id, fact.status, fact.event_at, fact.reason, fact.channel_metadata
    )
