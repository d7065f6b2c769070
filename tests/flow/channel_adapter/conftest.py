"""A channel-adapter on a real database and broker, with a scripted channel for a provider."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from msgspec.structs import replace
from pydantic import SecretStr

import switchboard_channels
from switchboard.bus import BusSettings, Outgoing, Producer, TopicSpec, dead_letter_topic, ensure_topics
from switchboard.channel import registry
from switchboard.channel.contract import (
    Account,
    Attempt,
    SendResult,
    WebhookAnswer,
    WebhookRequest,
)
from switchboard.channel.errors import InvalidWebhook
from switchboard.channel.manifest import Manifest
from switchboard.channel.outcome import Accepted, Outcome
from switchboard.configuration import App, Configuration, ConfigurationStore, Credential
from switchboard.configuration.credential import TelegramCredentials
from switchboard.content import AppMessage, TextMessage
from switchboard.http.client import HttpClient
from switchboard.http.pooled import PooledHttpClient
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, MessageId, ProjectId, attempt_id, mint
from switchboard.records import AttemptFinished, AttemptsRecord, DispatchMessage, ReceiptReceived
from switchboard.runtime import Runtime
from switchboard.secrets import KeyRing
from switchboard.store.messages import PlannedAttempt, insert_attempts, republish
from switchboard.store.pool import Pool, open_pool
from switchboard.store.writes import Writes
from switchboard.topics import ATTEMPTS, DISPATCH, INBOUND, Topic, topic_names
from switchboard_channel_adapter.claims import Claims
from switchboard_channel_adapter.compose import Adapter, Parts, serving
from switchboard_channel_adapter.inbound import Facts
from switchboard_channel_adapter.receipts import Receipts
from switchboard_channel_adapter.recorder import Ended, Recorder
from switchboard_channel_adapter.settings import AdapterSettings
from switchboard_channels.telegram.manifest import MANIFEST

PROJECT = ProjectId("0d2c8f1a-6a5e-4a57-9a58-6b1f6fb1b0c4")
TELEGRAM = ChannelName("TELEGRAM")
SMS = ChannelName("SMS")
KEYS = KeyRing.generate()
AT_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

Script = Callable[[Attempt], Awaitable[SendResult]]


class ScriptedChannel:
    """A request channel whose provider does what the test says, and that remembers what it was given."""

    def __init__(self, script: Script | None = None, manifest: Manifest = MANIFEST) -> None:
        self.manifest = manifest
        self.submitted: list[Attempt] = []
        self.script = script or accepts
        self.answer = WebhookAnswer()

    async def send(self, attempt: Attempt, account: Account, http: HttpClient) -> SendResult:
        self.submitted.append(attempt)
        return await self.script(attempt)

    def parse_webhook(self, request: WebhookRequest, account: Account) -> WebhookAnswer:
        if request.headers.get("x-secret") != account.credentials["token"]:
            raise InvalidWebhook("no")
        return self.answer


async def accepts(attempt: Attempt) -> SendResult:
    return SendResult(Accepted((f"p-{attempt.attempt_id}",)))


class World:
    """The database, the topics, an app with a bot, and what was published."""

    def __init__(self, pool: Pool, producer: Producer, configuration: Configuration, kafka: str, prefix: str) -> None:
        self.pool = pool
        self.producer = producer
        self.configuration = configuration
        self.kafka = kafka
        self.prefix = prefix
        self.app_id = AppId("")
        self.account = AccountKey("")
        self.receipts = Receipts(pool, producer, topic_prefix=prefix)
        self.recorder = Recorder(pool, producer, self.receipts, topic_prefix=prefix)

    def claims(self, owner: str = "me", **options: Any) -> Claims:
        return Claims(self.pool, owner, **options)

    def facts(self, manifest: Manifest = MANIFEST) -> Facts:
        return Facts(
            manifest, self.pool, self.producer, self.receipts, self.configuration,
            topic_prefix=self.prefix, hash_key=b"k" * 32,
        )  # fmt: skip

    async def bot(self) -> tuple[AppId, AccountKey]:
        """A new app with a bot."""
        app_id = AppId(mint())
        await self.configuration.store.insert_app(
            App(
                id=app_id,
                project_id=PROJECT,
                display_name="Harbour notices",
                channel_credentials=(
                    Credential(channel=TELEGRAM, telegram_credentials=TelegramCredentials("1:token")),
                ),
            )
        )
        return app_id, AccountKey(f"app:{app_id}:TELEGRAM")

    async def plan(
        self,
        chat: str = "777000",
        seconds: float = 30.0,
        *,
        identity: ChannelIdentity | None = None,
        account: AccountKey | None = None,
        app_id: AppId | None = None,
    ) -> DispatchMessage:
        """A planned attempt, and the order to submit it: to a chat, unless told otherwise."""
        now = await self.pool.fetchval("SELECT switchboard.now()")
        order = DispatchMessage(
            message_id=MessageId(mint()),
            step=0,
            submission=1,
            project_id=PROJECT,
            app_id=app_id or self.app_id,
            account=account or self.account,
            identity=identity or ChannelIdentity(TELEGRAM, chat),
            message=AppMessage(text_message=TextMessage("The ferry leaves at noon.")),
            send_before=now + timedelta(seconds=seconds),
        )
        planned = PlannedAttempt(
            order.message_id, order.step, order.submission, order.app_id, order.account, order.identity,
            order.send_before, (),
        )  # fmt: skip
        writes = Writes()
        insert_attempts(writes, [planned])
        async with self.pool.acquire() as connection:
            await writes.execute(connection)
        return order

    async def dispatch(self, *orders: DispatchMessage) -> None:
        await self.producer.publish(
            [
                Outgoing(
                    DISPATCH.name(self.prefix, order.identity.channel),
                    order.identity.identity.encode(),
                    DISPATCH.encode(order),
                    DISPATCH.headers(order),
                )
                for order in orders
            ]
        )

    async def publish_once_more(self, order: DispatchMessage) -> None:
        """What the router does with an attempt that nobody claimed in time."""
        now = await self.pool.fetchval("SELECT switchboard.now()")
        key = (order.message_id, order.step, order.submission)
        async with self.pool.acquire() as connection:
            await republish(connection, [(*key, now + timedelta(seconds=30))])
        await self.dispatch(order)

    async def row(self, order: DispatchMessage) -> Mapping[str, Any]:
        found = await self.pool.fetchrow("SELECT * FROM switchboard.attempts WHERE message_id = $1", order.message_id)
        assert found is not None
        return dict(found)

    async def told(self, order: DispatchMessage | None = None) -> list[AttemptsRecord]:
        """What is on `attempts` so far, of one message or of all."""
        found = await self.published(ATTEMPTS)
        return [record for record in found if order is None or record.message_id == order.message_id]

    async def outcomes(self, order: DispatchMessage) -> list[Outcome]:
        return [record.outcome for record in await self.told(order) if isinstance(record, AttemptFinished)]

    async def receipts_told(self, order: DispatchMessage) -> list[ReceiptReceived]:
        return [record for record in await self.told(order) if isinstance(record, ReceiptReceived)]

    async def published(self, topic: Topic[Any]) -> list[Any]:
        consumer = AIOKafkaConsumer(
            topic.name(self.prefix),
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
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    found += [topic.decode(record.value, dict(record.headers)) for record in batch]
            return found
        finally:
            await consumer.stop()

    async def received(self) -> list[Any]:
        return await self.published(INBOUND)

    def ended(self, order: DispatchMessage, outcome: Outcome, **options: Any) -> Ended:
        return Ended(
            order.message_id,
            order.step,
            order.submission,
            order.account,
            order.identity,
            SendResult(outcome),
            **options,
        )


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, size=10, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def world(pool: Pool, kafka: str, topic_prefix: str) -> AsyncIterator[World]:
    store = ConfigurationStore(pool, KeyRing.parse(KEYS), registry.manifests(switchboard_channels))
    configuration = Configuration(store)
    await configuration.start()
    bus = BusSettings(bootstrap=kafka, topic_prefix=topic_prefix)
    specs = [TopicSpec(name, 2) for name in topic_names(topic_prefix, [TELEGRAM, SMS])]
    await ensure_topics(kafka, [*specs, dead_letter_topic(bus)])
    producer = Producer(bus)
    await producer.start()
    world = World(pool, producer, configuration, kafka, topic_prefix)
    await store.put_project(PROJECT, "Harbour")
    world.app_id, world.account = await world.bot()
    yield world
    await producer.stop()
    await configuration.stop()


Start = Callable[..., Awaitable[Runtime[AdapterSettings]]]


@pytest.fixture
async def start(world: World, database: str) -> AsyncIterator[Start]:
    """Start an instance of the service with these channels: `await start(channel)`."""
    async with AsyncExitStack() as stack:

        async def begin(*channels: Any, owner: str = "", **options: Any) -> Runtime[AdapterSettings]:
            settings = AdapterSettings(
                postgres_dsn=SecretStr(database),
                kafka_bootstrap=world.kafka,
                topic_prefix=world.prefix,
                secret_keys=SecretStr(KEYS),
                **options,
            )
            runtime = Runtime("channel-adapter", settings, world.pool)
            http, side = PooledHttpClient(), PooledHttpClient()
            stack.push_async_callback(http.close)
            stack.push_async_callback(side.close)
            parts = Parts(
                settings, world.pool, world.producer, world.configuration, http, side, b"k" * 32, owner or mint()
            )
            adapters: dict[ChannelName, Adapter] = {channel.manifest.channel: channel for channel in channels}
            await stack.enter_async_context(serving(runtime, parts, adapters))
            return runtime

        yield begin


def quick(seconds: float) -> Manifest:
    """The scripted channel's facts, with less patience for its provider."""
    return replace(MANIFEST, send_timeout_seconds=seconds)


def attempt_of(identity: str) -> Attempt:
    """An attempt with nothing special about it."""
    message_id = MessageId(mint())
    return Attempt(
        message_id=message_id,
        attempt_id=attempt_id(message_id, 0, 1),
        app_id=AppId("a"),
        identity=ChannelIdentity(TELEGRAM, identity),
        message=AppMessage(text_message=TextMessage("The ferry leaves at noon.")),
    )
