"""`switchboard up`: servers, schema, development project, services, in this order, and down again in reverse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

import msgspec
from msgspec import Struct
from pydantic import SecretStr
from pyreqwest.client import Client, ClientBuilder

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres, Servers
from switchboard.ids import AppId
from switchboard.secrets import KeyRing
from switchboard.settings import PREFIX
from switchboard.store.pool import Pool, open_pool
from switchboard_standalone import fleet
from switchboard_standalone.development import RECEIVER, seed
from switchboard_standalone.fleet import SIMULATOR, Fleet, Place, Wishes
from switchboard_standalone.home import Development, Home, Running
from switchboard_standalone.schema import bring_up_to_date
from switchboard_standalone.schema_settings import EMBEDDED_PARTITIONS, SchemaSettings
from switchboard_standalone.supervisor import Event, Ready, ServerRestarted, Started, Supervisor

_LOOK_SECONDS: Final = 0.2


Told = Event | ServerRestarted


class Installation(Struct, frozen=True):
    """What runs."""

    home: Home
    fleet: Fleet
    development: Development
    running: Callable[[], Running]
    #: Returns only when something that has to run cannot be kept running.
    watch: Callable[[], Awaitable[None]]


@asynccontextmanager
async def installation(
    home: Home, servers: Servers, *, port: int, wishes: Wishes, tell: Callable[[Told], None]
) -> AsyncIterator[Installation]:
    """Run everything on servers that answer; `dev.json` is there while it works. Main thread only.

    Raises EmbeddedError, ServiceFailed, MigrationError, BusError, HomeError; nothing is left running then.
    """
    ports = fleet.choose_ports(port, home.ports(), simulator=wishes.simulator)
    home.keep_ports(ports)
    secret_keys = os.environ.get(f"{PREFIX}SECRET_KEYS") or home.secret_keys()
    schema = _schema(servers)
    place = Place(servers.postgres_dsn, servers.kafka_bootstrap, secret_keys)
    described = fleet.build(home, place, ports, wishes)
    simulator_url = described.urls.get(SIMULATOR, "")
    await bring_up_to_date(schema)
    async with AsyncExitStack() as stack:
        pool = await open_pool(servers.postgres_dsn, size=2, service="standalone")
        stack.push_async_callback(pool.close)
        development = await seed(
            home, pool, KeyRing.parse(secret_keys), simulator_url=simulator_url, smpp_port=ports.smpp
        )
        client = ClientBuilder().no_proxy().timeout(timedelta(seconds=5)).build()
        stack.push_async_callback(client.close)
        outside = Outside(client, pool, simulator_url, development) if simulator_url else None
        everything = _Everything(home, servers, described, development, schema.topic_prefix, outside, tell)
        supervisor = Supervisor(described.services, logs=home.logs, tell=everything.on_event)
        everything.supervisor = supervisor
        stack.push_async_callback(everything.stop)
        await stack.enter_async_context(supervisor)
        everything.start()
        stack.callback(home.forget_running)
        await everything.all_told()
        yield Installation(home, described, development, everything.running, everything.watch)


class Outside(Struct, frozen=True):
    """What the simulated world must be told after each of its starts: it remembers nothing."""

    client: Client
    pool: Pool
    simulator_url: str
    development: Development

    async def tell(self) -> None:
        """Give the receiver its secret, and have the bot's webhook registered anew."""
        body = msgspec.json.encode({"secret": self.development.webhook_secret})
        request = self.client.put(f"{self.simulator_url}/control/receivers/{RECEIVER}")
        await request.header("content-type", "application/json").body_bytes(body).build().send()
        await register_again(self.pool, self.development.app_id)


async def register_again(pool: Pool, app_id: AppId) -> None:
    """Say that the app changed: channel-adapter then tells the providers again where to post."""
    await pool.execute("SELECT pg_notify('switchboard_configuration', 'apps:' || $1)", app_id)


class _Everything:
    """Keeps `dev.json` right, the simulated world informed and the embedded servers running."""

    def __init__(
        self,
        home: Home,
        servers: Servers,
        described: Fleet,
        development: Development,
        topic_prefix: str,
        outside: Outside | None,
        tell: Callable[[Told], None],
    ) -> None:
        self._home = home
        self._servers = servers
        self._fleet = described
        self._development = development
        self._topic_prefix = topic_prefix
        self._outside = outside
        self._tell = tell
        self._works = False
        self._telling: set[asyncio.Task[None]] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self.supervisor: Supervisor | None = None

    def start(self) -> None:
        """Everything is ready: from now on `dev.json` says so and servers are kept."""
        kept = [server for server in (self._servers.postgres, self._servers.kafka) if server is not None]
        self._keepers = [asyncio.create_task(self._keep(server)) for server in kept]

    async def all_told(self) -> None:
        """Wait until the world outside was told, then say that everything works."""
        await asyncio.gather(*self._telling)
        if self._outside is not None:
            # The adapter may have asked for updates before there was anybody to ask.
            await register_again(self._outside.pool, self._development.app_id)
        self._works = True
        self._home.tell_running(self.running())

    async def stop(self) -> None:
        """Keep nothing any more. Before servers are stopped on purpose."""
        tasks = [*self._keepers, *self._telling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def watch(self) -> None:
        """Ends when a server or service cannot be kept running, with what kept it."""
        assert self.supervisor is not None
        await asyncio.gather(self.supervisor.watch(), *self._keepers)

    def on_event(self, event: Event) -> None:
        """Called by the supervisor."""
        self._tell(event)
        if isinstance(event, Ready) and event.name == SIMULATOR and self._outside is not None:
            task = asyncio.create_task(self._outside.tell())
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        if isinstance(event, Started) and self._works:
            self._home.tell_running(self.running())

    def running(self) -> Running:
        """What runs now."""
        assert self.supervisor is not None
        made = self._development
        return Running(
            base_url=self._fleet.urls[fleet.INGRESS],
            project_id=made.project_id,
            key_id=made.key_id,
            key_secret=made.key_secret,
            app_id=made.app_id,
            simulator_url=self._fleet.urls.get(SIMULATOR, ""),
            kafka=self._servers.kafka_bootstrap,
            postgres=self._servers.postgres_dsn,
            pids={**self._servers.pids, **self.supervisor.pids},
            topic_prefix=self._topic_prefix,
            urls=dict(self._fleet.urls),
            webhook_id=made.webhook_id,
            number=made.number,
            telegram_token=made.telegram_token,
            supervisor_pid=os.getpid(),
        )

    async def _keep(self, server: EmbeddedPostgres | EmbeddedKafka) -> None:
        """Start a server again whenever it ends by itself: same port, same data."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not server.running:
                await server.stop_async()
                await server.start_async()
                self._tell(ServerRestarted(server.name))
                self._home.tell_running(self.running())


def _schema(servers: Servers) -> SchemaSettings:
    settings = SchemaSettings(postgres_dsn=SecretStr(servers.postgres_dsn), kafka_bootstrap=servers.kafka_bootstrap)
    if servers.kafka is None or "topic_partitions" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"topic_partitions": EMBEDDED_PARTITIONS})
