"""callback-delivery over real Kafka and PostgreSQL, posting to a webhook of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from tests.flow.callback_delivery.receiver import Receiver

from switchboard.bus import BusSettings, Consumer, InSlots, Outgoing, Producer, TopicSpec, ensure_topics
from switchboard.configuration import App, CallbackSettings, DispatchRetentionPolicy, RateLimits, Webhook
from switchboard.http.address import parse_networks
from switchboard.http.guarded import GuardedHttpClient
from switchboard.ids import AppId, CallbackId, ProjectId, WebhookId, derive, mint
from switchboard.records import DeliverCallback
from switchboard.store.pool import Pool, open_pool
from switchboard.topics import CALLBACKS
from switchboard.trigger import Trigger
from switchboard_callback_delivery.compose import KNOWN_ERRORS, Machine
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.settings import DeliverySettings

SECRET = "wharf-lantern-42"


class FakeApps:
    """A configuration that a test writes by hand."""

    def __init__(self) -> None:
        self.apps: dict[AppId, App] = {}
        self.hooks: dict[AppId, tuple[Webhook, ...]] = {}
        #: Apps of whose webhooks the service has not heard.
        self.missed: set[AppId] = set()

    async def app(self, app_id: AppId) -> App | None:
        return self.apps.get(app_id)

    async def webhooks(self, app_id: AppId) -> tuple[Webhook, ...]:
        return () if app_id in self.missed else self.hooks.get(app_id, ())

    def forget(self, app_id: AppId) -> None:
        self.missed.discard(app_id)

    def add(
        self,
        target: str,
        *,
        app_id: AppId | None = None,
        per_second: int = 1000,
        days: int = 0,
        secrets: tuple[str, ...] = (SECRET,),
        **more: Any,
    ) -> Webhook:
        """An app with a webhook, or another webhook of an app."""
        app = self.apps.get(app_id) if app_id else None
        if app is None:
            app = App(
                id=app_id or AppId(mint()),
                project_id=ProjectId("5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90"),
                display_name="Harbour notices",
                rate_limits=RateLimits(webhooks=per_second),
                dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=days),
                callback_settings=CallbackSettings("override-secret"),
            )
            self.apps[app.id] = app
        webhook = Webhook(
            id=WebhookId(mint()),
            app_id=app.id,
            project_id=app.project_id,
            target=target,
            triggers=(Trigger.MESSAGE_DELIVERY,),
            secrets=secrets,
            **more,
        )
        self.hooks[app.id] = (*self.hooks.get(app.id, ()), webhook)
        return webhook


class World:
    """The service, its stores, and what a test asks of them."""

    def __init__(self, pool: Pool, database: str, kafka: str, prefix: str, stack: AsyncExitStack) -> None:
        self.pool = pool
        self.database = database
        self.kafka = kafka
        self.prefix = prefix
        self.apps = FakeApps()
        self.stack = stack
        self._bus = BusSettings(bootstrap=kafka, topic_prefix=prefix, client_id="test")
        self._producer: Producer | None = None

    def settings(self, **options: Any) -> DeliverySettings:
        return DeliverySettings(
            postgres_dsn=SecretStr(self.database),
            kafka_bootstrap=self.kafka,
            topic_prefix=self.prefix,
            secret_keys=SecretStr("unused"),
            **{"allowed_networks": "127.0.0.0/8", "drain_seconds": 0.05, **options},
        )

    async def run(
        self, *, client: GuardedHttpClient | None = None, slow_seconds: float = 1.0, **options: Any
    ) -> Running:
        """Start the service in this process; it is stopped with the test unless the test does."""
        settings = self.settings(**options)
        http = client or GuardedHttpClient(allowed=parse_networks(settings.allowed_networks))
        registry = CollectorRegistry()
        machine = Machine(self.pool, self.apps, http, settings, DeliveryMetrics(registry), slow_seconds=slow_seconds)
        running = Running(machine, http, registry)
        await running.start(self._bus, settings, await self.producer())
        self.stack.push_async_callback(running.stop)
        return running

    async def producer(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._bus)
            await self._producer.start()
            self.stack.push_async_callback(self._producer.stop)
        return self._producer

    async def publish(self, *callbacks: DeliverCallback) -> None:
        """Order callbacks, as the router does."""
        producer = await self.producer()
        await producer.publish(
            [
                Outgoing(
                    CALLBACKS.name(self.prefix),
                    f"{callback.webhook_id or callback.target}|{callback.stream}".encode(),
                    CALLBACKS.encode(callback),
                    CALLBACKS.headers(callback),
                )
                for callback in callbacks
            ]
        )

    async def rows(self, **where: Any) -> list[Any]:
        """Rows of callback_events, in order of stream and sequence."""
        condition = " AND ".join(f"{name} = ${place}" for place, name in enumerate(where, 1)) or "true"
        return list(
            await self.pool.fetch(
                f"SELECT * FROM switchboard.callback_events WHERE {condition} ORDER BY stream, sequence",
                *where.values(),
            )
        )

    async def states(self, **where: Any) -> list[str]:
        return [row["state"] for row in await self.rows(**where)]

    async def now(self) -> datetime:
        moment: datetime = await self.pool.fetchval("SELECT switchboard.now()")
        return moment

    async def advance(self, by: timedelta) -> None:
        """Move the database's clock."""
        await self.pool.execute("UPDATE switchboard.clock SET shift = shift + $1", by)

    async def advance_to_next_try(self) -> timedelta:
        """Move the clock to when the next stream is due, and past its gate's probe. Returns by how much."""
        wait: timedelta = await self.pool.fetchval(
            "SELECT greatest(min(greatest(stream.due_at, lane.probe_at)) - switchboard.now(), interval '0')"
            " + interval '1 millisecond'"
            " FROM switchboard.callback_streams AS stream JOIN switchboard.lanes AS lane ON lane.id = stream.endpoint"
        )
        await self.advance(wait)
        return wait


class Running:
    """One running instance."""

    def __init__(self, machine: Machine, client: GuardedHttpClient, registry: CollectorRegistry) -> None:
        self.machine = machine
        self._client = client
        self._registry = registry
        self._consumer: Consumer | None = None
        self._stack = AsyncExitStack()

    async def start(self, bus: BusSettings, settings: DeliverySettings, producer: Producer) -> None:
        await self._stack.enter_async_context(self.machine.running())
        self._consumer = Consumer(
            bus,
            topics=[CALLBACKS.name(bus.topic_prefix)],
            group=f"{bus.topic_prefix}callback-delivery",
            handle=InSlots(self.machine.delivery, slots=settings.slots),
            producer=producer,
            on_dead_letter=self.machine.on_dead_letter,
            known=KNOWN_ERRORS,
        )
        await self._consumer.start()

    def parked(self) -> int:
        """How many events it parked without a try."""
        return int(self._registry.get_sample_value("switchboard_callback_parked_total") or 0)

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None
            await self._stack.aclose()
            await self._client.close()


def callback(
    webhook: Webhook | None, *, stream: str = "", sequence: int = 1, body: bytes = b'{"note":"bl\xc3\xa5"}', **more: Any
) -> DeliverCallback:
    """An order to post one callback."""
    stream = stream or mint()
    fields: dict[str, Any] = {
        "callback_id": CallbackId(derive(stream, "callback", sequence, webhook.id if webhook else more["target"])),
        "project_id": webhook.project_id if webhook else ProjectId("p"),
        "app_id": webhook.app_id if webhook else AppId("a"),
        "trigger": Trigger.MESSAGE_DELIVERY,
        "webhook_id": webhook.id if webhook else "",
        "target": "",
        "stream": stream,
        "sequence": sequence,
        "event_at": datetime.now(UTC),
        "body": Raw(body),
    }
    return DeliverCallback(**{**fields, **more})


@pytest.fixture
async def world(database: str, kafka: str, topic_prefix: str) -> AsyncIterator[World]:
    """Stores of this test; `world.run()` starts the service over them."""
    await ensure_topics(
        kafka, [TopicSpec(CALLBACKS.name(topic_prefix), 2), TopicSpec(f"{topic_prefix}dead-letters.v1", 1)]
    )
    async with AsyncExitStack() as stack:
        pool = await open_pool(database, size=8, service="test")
        stack.push_async_callback(pool.close)
        yield World(pool, database, kafka, topic_prefix, stack)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook that takes everything until it is told otherwise."""
    server = Receiver()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def receivers() -> AsyncIterator[Callable[[], Awaitable[Receiver]]]:
    """More of them."""
    servers: list[Receiver] = []

    async def more() -> Receiver:
        server = Receiver()
        await server.start()
        servers.append(server)
        return server

    yield more
    for server in servers:
        await server.stop()
