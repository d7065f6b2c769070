"""Facts from providers become records: receipts, messages and events from people, opt-ins and opt-outs.

Every fact is durable when `take` returns: published, or a row. A provider that repeats itself gets the same id again,
so that the router tells nothing twice.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from switchboard.bus import Outgoing, Producer
from switchboard.channel.contract import (
    ChannelEventFact,
    EventFact,
    Fact,
    InboundFact,
    InboundPart,
    ReceiptFact,
)
from switchboard.channel.manifest import AccountOwner, Manifest
from switchboard.configuration import App, Configuration
from switchboard.content import ChoiceResponseMessage, ContactMessage, ReplyTo
from switchboard.identity import ChannelIdentity, keyed_hash
from switchboard.ids import AccountKey, AppId, MessageId, derive_at, time_of
from switchboard.records import ChannelEvent, MessageReceived
from switchboard.store.pool import Connection, Pool
from switchboard.topics import INBOUND
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.others import Other, OtherRecord, name_of, record_of
from switchboard_channel_adapter.receipts import Heard, Receipts

log = structlog.get_logger(__name__)

_SEEN: Final = """
INSERT INTO switchboard.inbound_seen (account, provider_id, message_id, seen_at)
SELECT account, provider_id, message_id, $4::timestamptz
FROM unnest($1::text[], $2::text[], $3::text[]) AS heard (account, provider_id, message_id)
ORDER BY account, provider_id
ON CONFLICT (account, provider_id) DO UPDATE SET seen_at = excluded.seen_at
RETURNING provider_id, message_id
"""
_ANSWERED: Final = """
SELECT provider_id, max(message_id) AS message_id FROM switchboard.provider_ids
WHERE account = $1 AND provider_id = ANY($2::text[]) GROUP BY provider_id
"""
_POSTBACKS: Final = "SELECT key, postback FROM switchboard.postbacks WHERE account = $1 AND key = ANY($2::text[])"
_KEEP: Final = """
INSERT INTO switchboard.kept_facts (account, provider_id, kind, fact, received_at)
SELECT account, provider_id, kind, fact, switchboard.now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS heard (account, provider_id, kind, fact)
ORDER BY account, provider_id, kind
ON CONFLICT DO NOTHING
"""
_COLLECT: Final = """
INSERT INTO switchboard.inbound_parts (account, part_group, number, total, content, received_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (account, part_group, number)
DO UPDATE SET content = excluded.content, total = excluded.total, received_at = excluded.received_at
"""
_GROUP: Final = """
SELECT number, total, content, received_at FROM switchboard.inbound_parts
WHERE account = $1 AND part_group = $2 ORDER BY number
"""


class Facts:
    """What one channel's provider told, on its way to the router."""

    def __init__(
        self,
        manifest: Manifest,
        pool: Pool,
        producer: Producer,
        receipts: Receipts,
        configuration: Configuration,
        *,
        topic_prefix: str,
        hash_key: bytes,
    ) -> None:
        """`hash_key` is the installation's key for record keys."""
        self._manifest = manifest
        self._pool = pool
        self._producer = producer
        self._receipts = receipts
        self._configuration = configuration
        self._topic = INBOUND.name(topic_prefix)
        self._hash_key = hash_key

    async def take(self, account: AccountKey, facts: Sequence[Fact], app_id: AppId | None = None) -> None:
        """Make the facts durable. `app_id` is whose account it is, where an app owns it.

        Raises what database and broker raise; then the provider is not answered, and tells again.
        """
        for fact in facts:
            metrics.facts.labels(self._manifest.channel, type(fact).__name__).inc()
        receipts = [fact for fact in facts if isinstance(fact, ReceiptFact)]
        messages = [fact for fact in facts if isinstance(fact, InboundFact)]
        others = [fact for fact in facts if not isinstance(fact, ReceiptFact | InboundFact)]
        # Side by side, so that what one delivery of the provider held is one batch in the database.
        await asyncio.gather(
            *(self._receipts.take(Heard(self._manifest.channel, account, receipt)) for receipt in receipts)
        )
        if messages:
            await self._take_messages(account, messages, app_id)
        if others:
            await self._take_others(account, others, app_id)

    async def collect(self, account: AccountKey, part: InboundPart) -> Sequence[InboundPart]:
        """Store a part of a long message. Returns all parts of its group if they are all there."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _COLLECT, account, part.group, part.number, part.total, part.content, part.received_at
            )
            rows = await connection.fetch(_GROUP, account, part.group)
        parts = [InboundPart(part.group, r["number"], r["total"], r["content"], r["received_at"]) for r in rows]
        return parts if {p.number for p in parts} >= set(range(1, part.total + 1)) else []

    async def _take_messages(self, account: AccountKey, facts: Sequence[InboundFact], app_id: AppId | None) -> None:
        owned = [(fact, owner) for fact in facts if (owner := await self._owner(account, fact, app_id)) is not None]
        if not owned:
            return
        async with self._pool.acquire() as connection:
            now: datetime = await connection.fetchval("SELECT switchboard.now()")
            ids = await _ids(connection, account, [fact.provider_id for fact, _ in owned], now)
            facts = await _completed(connection, account, [fact for fact, _ in owned])
        records = []
        for fact, (_, owner) in zip(facts, owned, strict=True):
            app = await self._configuration.app(owner)
            if app is not None:
                records.append(self._received(fact, app.id, app.project_id, ids[fact.provider_id]))
        await self._producer.publish([self._outgoing(record) for record in records])

    async def _take_others(self, account: AccountKey, facts: Sequence[Other], app_id: AppId | None) -> None:
        """Publish what is not a message. What no app is named by is kept raw: an account may have many apps."""
        owned: list[tuple[Other, App]] = []
        nobodys: list[Other] = []
        for fact in facts:
            app = await self._app_of(account, fact, app_id)
            if app is None:
                nobodys.append(fact)
            else:
                owned.append((fact, app))
        if nobodys:
            await self._keep(account, nobodys)
        if not owned:
            return
        async with self._pool.acquire() as connection:
            now: datetime = await connection.fetchval("SELECT switchboard.now()")
            names = [name_of(fact) for fact, _ in owned]
            ids = await _ids(connection, account, names, now)
            about = [fact.about for fact, _ in owned if isinstance(fact, EventFact) and fact.about]
            told = await _answered(connection, account, about)
        records = []
        for fact, app in owned:
            identity = self._identity("" if isinstance(fact, ChannelEventFact) else fact.identity, app.id)
            records.append(record_of(fact, ids[name_of(fact)], app, identity, told))
        await self._producer.publish([self._outgoing_other(record) for record in records])

    async def _app_of(self, account: AccountKey, fact: Other, app_id: AppId | None) -> App | None:
        if self._manifest.owner is AccountOwner.OPERATOR:
            number = "" if isinstance(fact, ChannelEventFact) else fact.sender_id
            app_id = await self._configuration.app_of_number(account, number) if number else None
        return None if app_id is None else await self._configuration.app(app_id)

    async def _owner(self, account: AccountKey, fact: InboundFact, app_id: AppId | None) -> AppId | None:
        """The app a message is for. None, counted and logged without the number, if the number is nobody's."""
        if self._manifest.owner is AccountOwner.OPERATOR:
            app_id = await self._configuration.app_of_number(account, fact.sender_id)
        if app_id is None or await self._configuration.app(app_id) is None:
            metrics.unknown_numbers.labels(self._manifest.channel).inc()
            log.warning("a message to a number of no app", channel=self._manifest.channel, account=account)
            return None
        return app_id

    def _received(self, fact: InboundFact, app_id: AppId, project_id: str, message_id: MessageId) -> MessageReceived:
        scope = app_id if self._manifest.app_scoped else ""
        return MessageReceived(
            message_id=message_id,
            project_id=project_id,  # type: ignore[arg-type]
            app_id=app_id,
            identity=ChannelIdentity(self._manifest.channel, fact.identity, scope),
            message=fact.message,
            provider_id=fact.provider_id,
            accepted_at=time_of(message_id),
            event_at=fact.event_at,
            sender_id=fact.sender_id,
            channel_metadata=fact.channel_metadata,
        )

    def _outgoing(self, record: MessageReceived) -> Outgoing:
        key = keyed_hash(self._hash_key, record.app_id, record.identity.channel, record.identity.identity)
        return Outgoing(self._topic, key, INBOUND.encode(record), INBOUND.headers(record))

    def _identity(self, identity: str, app_id: AppId) -> ChannelIdentity:
        return ChannelIdentity(self._manifest.channel, identity, app_id if self._manifest.app_scoped else "")

    def _outgoing_other(self, record: OtherRecord) -> Outgoing:
        person = "" if isinstance(record, ChannelEvent) else record.identity.identity
        key = keyed_hash(self._hash_key, record.app_id, self._manifest.channel, person)
        return Outgoing(self._topic, key, INBOUND.encode(record), INBOUND.headers(record))

    async def _keep(self, account: AccountKey, facts: Sequence[Other]) -> None:
        rows = [(account, fact.provider_id, type(fact).__name__, msgspec.json.encode(fact)) for fact in facts]
        await self._pool.execute(_KEEP, *([*column] for column in zip(*rows, strict=True)))


async def _ids(
    connection: Connection, account: AccountKey, names: Sequence[str], now: datetime
) -> dict[str, MessageId]:
    """The id of each message or fact: the one it had when it was first heard, else one derived from what it is."""
    fresh = {name: derive_at(now, "inbound", account, name) for name in names}
    rows = await connection.fetch(_SEEN, [account] * len(fresh), list(fresh), list(fresh.values()), now)
    return {row["provider_id"]: MessageId(row["message_id"]) for row in rows}


async def _completed(connection: Connection, account: AccountKey, facts: Sequence[InboundFact]) -> list[InboundFact]:
    """The facts with what only our own rows know: which message was answered, and long postbacks."""
    answers = [fact.answers for fact in facts if fact.answers]
    keys = [fact.postback_key for fact in facts if fact.postback_key]
    answered = await _answered(connection, account, answers)
    postbacks = {r["key"]: r["postback"] for r in await connection.fetch(_POSTBACKS, account, keys)} if keys else {}
    return [
        replace(fact, message=_complete(fact.message, answered.get(fact.answers, ""), postbacks.get(fact.postback_key)))
        for fact in facts
    ]


async def _answered(connection: Connection, account: AccountKey, provider_ids: Sequence[str]) -> dict[str, str]:
    """Our ids of the messages that have these ids at the provider."""
    if not provider_ids:
        return {}
    rows = await connection.fetch(_ANSWERED, account, list(provider_ids))
    return {row["provider_id"]: row["message_id"] for row in rows}


def _complete(message: ContactMessage, answered: str, postback: str | None) -> ContactMessage:
    if (choice := message.choice_response_message) is not None:
        told = choice.postback_data if postback is None else postback
        return replace(message, choice_response_message=ChoiceResponseMessage(choice.message_id or answered, told))
    return replace(message, reply_to=ReplyTo(answered)) if answered else message
