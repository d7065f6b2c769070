"""A router's handlers on a real database and broker, with an app on SMS and TELEGRAM and what was published."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from msgspec.structs import replace

import switchboard_channels
from switchboard.bus import BusSettings, Producer, Record, TopicSpec, ensure_topics
from switchboard.channel.registry import manifests, renderers
from switchboard.configuration import (
    App,
    Configuration,
    ConfigurationStore,
    Credential,
    DispatchRetentionPolicy,
    RateLimits,
    ReportFallback,
    Webhook,
)
from switchboard.configuration.credential import StaticBearer, TelegramCredentials
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, MessageId, ProjectId, WebhookId, mint
from switchboard.lanes import LaneMemory
from switchboard.reason import ReasonCode
from switchboard.records import (
    AttemptsRecord,
    DeliverCallback,
    DispatchMessage,
    MessageAccepted,
    MessageReceived,
    ProcessingMode,
)
from switchboard.secrets import KeyRing
from switchboard.store.messages import Message, read
from switchboard.store.pool import Pool, open_pool
from switchboard.topics import ATTEMPTS, CALLBACKS, DISPATCH, INBOUND, MESSAGES_ACCEPTED, Topic, topic_names
from switchboard.trigger import Trigger
from switchboard_router.accepted import OnAccepted
from switchboard_router.attempts import OnAttempts
from switchboard_router.context import RouterContext
from switchboard_router.inbound import OnInbound
from switchboard_router.outputs import Publications

PROJECT = ProjectId("5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90")
SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")
PHONE = ChannelIdentity(SMS, "46701230001")
CHAT = ChannelIdentity(TELEGRAM, "777000")
MANIFESTS = manifests(switchboard_channels)
ALL = (Trigger.MESSAGE_DELIVERY, Trigger.MESSAGE_SUBMIT, Trigger.MESSAGE_INBOUND)


def impatient() -> LaneMemory:
    """A memory of lanes whose every second is over: no lane stays locked or shared."""
    return LaneMemory(monotonic=count(0, 3600).__next__)


class Router:
    """The handlers, fed with records, and the topics they publish to."""

    def __init__(self, context: RouterContext, app: App, kafka: str, prefix: str) -> None:
        self.context = context
        self.app = app
        self.kafka = kafka
        self.prefix = prefix
        self._offset = 0
        self._accepted = OnAccepted(context)
        self._attempts = OnAttempts(context)
        self._inbound = OnInbound(context)

    def accepted(self, *identities: ChannelIdentity, **fields: Any) -> MessageAccepted:
        """A message of the app to someone, as ingress publishes it."""
        return MessageAccepted(
            message_id=MessageId(mint()),
            project_id=PROJECT,
            app_id=self.app.id,
            accepted_at=datetime.now(UTC),
            message=AppMessage(text_message=TextMessage("The ferry leaves at noon.")),
            mode=ProcessingMode.DISPATCH,
            identities=identities,
            metadata="order-5521",
            correlation_id="corr-5521",
            **fields,
        )

    def beside(self, **changes: Any) -> "Router":
        """Another router of the same installation, for the same app."""
        context = replace(self.context, **{"lanes": LaneMemory(), **changes})
        return Router(context, self.app, self.kafka, self.prefix)

    async def plan(self, *records: MessageAccepted) -> None:
        await self._accepted([self.record(MESSAGES_ACCEPTED, record) for record in records])

    async def plan_raw(self, *records: Record) -> None:
        await self._accepted(records)

    async def tell(self, *records: AttemptsRecord) -> None:
        await self._attempts([self.record(ATTEMPTS, record) for record in records])

    async def receive(self, *records: MessageReceived) -> None:
        await self._inbound([self.record(INBOUND, record) for record in records])

    async def message(self, message_id: MessageId) -> Message:
        async with self.context.pool.acquire() as connection:
            return (await read(connection, [message_id], body=True))[message_id]

    async def lane(self) -> Mapping[str, Any]:
        """The app's dispatch lane on SMS."""
        row = await self.context.pool.fetchrow("SELECT * FROM lanes WHERE id LIKE 'dispatch:%SMS'")
        assert row is not None
        return dict(row)

    async def failed_with(self, message_id: MessageId) -> ReasonCode:
        """The code of the reason a message failed with."""
        reason = (await self.message(message_id)).progress.reason
        assert reason is not None
        return reason.code

    async def dispatched(self, channel: ChannelName) -> list[DispatchMessage]:
        """Every order published for a channel so far, oldest first."""
        return [record for record in await self._all(DISPATCH, channel) if isinstance(record, DispatchMessage)]

    async def callbacks(self) -> list[DeliverCallback]:
        """Every callback published so far, in the order of its stream."""
        found = await self._all(CALLBACKS, None)
        return sorted(found, key=lambda callback: (callback.stream, callback.sequence))

    def record(self, topic: Topic[Any], record: Any) -> Record:
        self._offset += 1
        return Record(topic.name(self.prefix), 0, self._offset, b"key", topic.encode(record), topic.headers(record), 0)

    async def _all(self, topic: Topic[Any], channel: ChannelName | None) -> list[Any]:
        consumer = AIOKafkaConsumer(
            topic.name(self.prefix, channel),
            bootstrap_servers=self.kafka,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            partitions = consumer.assignment()
            ends = await consumer.end_offsets(partitions)
            found: list[Any] = []
            while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
                batches = await consumer.getmany(timeout_ms=200)
                for batch in batches.values():
                    found += [topic.decode(record.value, dict(record.headers)) for record in batch]
            return found
        finally:
            await consumer.stop()


def app_of(app_id: AppId, *, fallback_seconds: int | None = None, retention_days: int = 7, per_second: int = 20) -> App:
    return App(
        id=app_id,
        project_id=PROJECT,
        display_name="Harbour notices",
        channel_credentials=(
            Credential(channel=SMS, static_bearer=StaticBearer("main", "t")),
            Credential(channel=TELEGRAM, telegram_credentials=TelegramCredentials("1:x")),
        ),
        rate_limits=RateLimits(outbound=per_second),
        dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=retention_days),
        delivery_report_based_fallback=ReportFallback(fallback_seconds is not None, fallback_seconds or 0),
    )


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, size=6, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def store(pool: Pool) -> ConfigurationStore:
    store = ConfigurationStore(pool, KeyRing({"k1": bytes(32)}), MANIFESTS)
    await store.put_project(PROJECT, "Harbour")
    await store.put_account(SMS, "main", b'{"host": "127.0.0.1", "system_id": "sb"}')
    return store


@pytest.fixture
async def make_router(store: ConfigurationStore, pool: Pool, kafka: str, topic_prefix: str) -> AsyncIterator[Any]:
    configuration = Configuration(store)
    await configuration.start()
    await configuration.hears()
    await ensure_topics(kafka, [TopicSpec(name, 1) for name in topic_names(topic_prefix, [SMS, TELEGRAM])])
    producer = Producer(BusSettings(bootstrap=kafka, topic_prefix=topic_prefix))
    await producer.start()

    async def make(triggers: Sequence[Trigger] = ALL, **options: Any) -> Router:
        app = app_of(AppId(mint()), **options)
        await store.insert_app(app)
        webhook = Webhook(
            id=WebhookId(mint()),
            app_id=app.id,
            project_id=PROJECT,
            target="http://127.0.0.1:1/callbacks",
            triggers=tuple(triggers),
        )
        await store.put_webhook(webhook)
        context = RouterContext(
            pool=pool,
            producer=producer,
            configuration=configuration,
            publications=Publications(topic_prefix, b"k" * 32, MANIFESTS),
            manifests=MANIFESTS,
            renderers=renderers(switchboard_channels),
            default_lane_rate=20.0,
        )
        return Router(context, app, kafka, topic_prefix)

    yield make
    await producer.stop()
    await configuration.stop()


@pytest.fixture
async def router(make_router: Any) -> Router:
    made: Router = await make_router()
    return made
