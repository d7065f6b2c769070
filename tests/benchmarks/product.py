"""Switchboard as a benchmark runs it: every service as its image runs it, one app that sends SMS to the lean SMSC."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import replace
from tests.benchmarks.outside.driver import Order, Report, drive
from tests.benchmarks.outside.sink import Sink, sink
from tests.benchmarks.servers import BenchServers
from tests.benchmarks.usage import Usage, usage_of
from tests.flow import installed

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.configuration import ConfigurationStore, DispatchRetentionPolicy, Webhook
from switchboard.configuration.app import App, RateLimits
from switchboard.configuration.credential import Credential, StaticBearer, TelegramCredentials
from switchboard.configuration.store import MAX_WEBHOOKS
from switchboard.identity import ChannelName
from switchboard.ids import AppId, WebhookId, mint
from switchboard.secrets import KeyRing
from switchboard.store.pool import open_pool
from switchboard.testing import wait_until
from switchboard.trigger import Trigger
from switchboard_standalone.home import Home, Running

#: High enough that no lane paces what a benchmark of cost sends.
UNPACED: Final = 100_000
SMS: Final = ChannelName("SMS")
TELEGRAM: Final = ChannelName("TELEGRAM")
ACCOUNT: Final = "bench"
_SERVICES: Final = ("ingress", "router", "channel-adapter", "callback-delivery")
#: What is reported of a message that goes out and arrives.
STATUSES: Final = ("QUEUED_ON_CHANNEL", "DELIVERED")
BODY: Final = {
    "recipient": {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": "%RECIPIENT%"}]}},
    "message": {"text_message": {"text": "Your parcel is at the door. Code 4711, good until six o'clock."}},
    "channel_priority_order": ["SMS"],
    "message_metadata": "order-4711",
    "correlation_id": "benchmark",
}


class World(Struct, frozen=True):
    """The sinks."""

    smsc: Sink
    receiver: Sink

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {"(smsc)": self.smsc.pid, "(receiver)": self.receiver.pid}

    def target(self, path: str) -> str:
        """The URL of a path of the receiver."""
        return f"http://127.0.0.1:{self.receiver.told}{path}"

    async def reset(self) -> None:
        """Forget what came."""
        await self.smsc.ask("reset")
        await self.receiver.ask("reset")


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Both sinks, until the block ends."""
    async with sink("tests.benchmarks.outside.smsc") as smsc, sink("tests.benchmarks.outside.receiver") as receiver:
        yield World(smsc, receiver)


class Load(Struct, frozen=True, kw_only=True):
    """What a run sends."""

    messages: int
    connections: int = 64
    #: Messages a second; None: as fast as they are answered.
    rate: float | None = None
    #: Callback URLs in turn; none: the app's webhook.
    targets: Sequence[str] = ()
    #: Where in the request the targets go; another field than the callback's address takes another kind of target.
    target_field: str = "callback_url"
    tries: int = 1
    #: What the request says besides, or instead.
    fields: Mapping[str, Any] = {}


class Void(Exception):
    """A run in which an id is missing or was seen more often than it may be: its figures mean nothing."""


class Product:
    """A running installation."""

    def __init__(self, home: Home, world: World, servers: BenchServers) -> None:
        self._home = home
        self._world = world
        self._servers = servers
        self._next_recipient = 46_700_000_000
        #: The webhook that tells the lean receiver.
        self.webhook_id = WebhookId("")

    @property
    def running(self) -> Running:
        """`dev.json` as it is now."""
        return msgspec.json.decode(self._home.dev_json.read_bytes(), type=Running)

    def usage(self) -> dict[str, Usage]:
        """What every process has used: services, servers, and in brackets the world outside."""
        services = self.running.pids
        pids = {name: services[name] for name in _SERVICES} | self._servers.pids | self._world.pids
        return {name: usage_of(pid) for name, pid in pids.items()}

    async def send(self, load: Load) -> Report:
        """Send messages, each to a recipient of its own, and return once all are answered."""
        running = self.running
        body: dict[str, Any] = {"app_id": running.app_id, **BODY, **load.fields}
        if load.targets:
            body[load.target_field] = "%TARGET%"
        host, _, port = running.base_url.removeprefix("http://").partition(":")
        first = int(self.recipients(load.messages)[0])
        return await drive(
            Order(
                host=host, port=int(port), path=f"/v1/projects/{running.project_id}/messages:send",
                user=running.key_id, password=running.key_secret, body=msgspec.json.encode(body).decode(),
                messages=load.messages, first_recipient=first, connections=load.connections, rate=load.rate,
                targets=tuple(load.targets) or ("",), tries=load.tries,
            )
        )  # fmt: skip

    def recipients(self, number: int) -> list[str]:
        """So many numbers that nobody was given before."""
        first, self._next_recipient = self._next_recipient, self._next_recipient + number
        return [str(first + offset) for offset in range(number)]

    async def told(self, messages: int, path: str = "/callbacks", seconds: float = 120.0) -> None:
        """Wait until so many messages were reported DELIVERED at a path of the receiver."""

        async def are_there() -> bool:
            return bool(await self._world.receiver.ask("count", path=path, status="DELIVERED") >= messages)

        await wait_until(are_there, seconds, f"{messages} messages reported at {path}")

    async def check(
        self,
        report: Report,
        paths: Sequence[str] = ("/callbacks",),
        *,
        once: bool = True,
        statuses: Sequence[str] = STATUSES,
    ) -> None:
        """Raises Void unless every message came to its recipient once and was reported, signed, in order."""
        if report.refused:
            raise Void(f"{report.refused} messages were refused")
        submitted = await self._world.smsc.ask("recipients")
        for sent in report.sent:
            if submitted.get(str(sent.recipient)) != 1:
                raise Void(f"message {sent.message_id} was submitted {submitted.get(str(sent.recipient), 0)} times")
        reported: dict[str, list[str]] = {}
        for path in paths:
            for message_id, status, _ in await self._world.receiver.ask("arrivals", path=path):
                reported.setdefault(message_id, []).append(status)
        for sent in report.sent:
            told = reported.get(sent.message_id, [])
            # At least once and in order is what is promised; without faults it is once.
            seen = list(dict.fromkeys(told))
            if seen != list(statuses) or (once and len(told) != len(seen)):
                raise Void(f"message {sent.message_id} was reported as {told}")
        faults = await self._world.receiver.ask("faults")
        if faults["unsigned"]:
            raise Void(f"{faults['unsigned']} callbacks carried no signature")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to its database."""
        connection = await asyncpg.connect(
            self._servers.postgres.dsn, server_settings={"search_path": "switchboard, public"}
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def set_rate(self, messages_per_second: int) -> None:
        """Change what the app may send a second."""
        async with self._store() as store:
            app = await store.app(self.running.app_id)
            assert app is not None
            await store.update_app(replace(app, rate_limits=replace(app.rate_limits, outbound=messages_per_second)))

    async def bots(self, number: int) -> list[AppId]:
        """Apps like the first, each with a bot of its own beside the SMS account."""
        async with self._store() as store:
            app = await store.app(self.running.app_id)
            assert app is not None
            [webhook] = await store.webhooks(app.id)
            apps = []
            for place in range(number):
                bot = Credential(
                    channel=TELEGRAM, telegram_credentials=TelegramCredentials(token=f"{place + 1}:benchmark")
                )
                apps.append(replace(app, id=AppId(mint()), channel_credentials=(*app.channel_credentials, bot)))
            for one in apps:
                await store.insert_app(one)
                await store.put_webhook(replace(webhook, id=WebhookId(mint()), app_id=one.id))
        return [one.id for one in apps]

    async def more_apps(self, rates: Iterable[int]) -> dict[AppId, int]:
        """Apps like the first, without webhooks, that may send so many messages a second each."""
        async with self._store() as store:
            app = await store.app(self.running.app_id)
            assert app is not None
            apps = {AppId(mint()): rate for rate in rates}
            for app_id, rate in apps.items():
                limits = replace(app.rate_limits, outbound=rate)
                await store.insert_app(replace(app, id=app_id, rate_limits=limits))
        return apps

    async def prepare(self) -> None:
        """Make the app send through the lean SMSC and tell the lean receiver, and wait until it can."""
        running = self.running
        target = self._world.target("/callbacks")
        async with self._store() as store:
            app = await store.app(running.app_id)
            assert app is not None
            await store.put_account(SMS, ACCOUNT, _smsc_account(int(self._world.smsc.told)))
            await store.update_app(_bench_app(app))
            webhooks = await store.webhooks(app.id)
            self.webhook_id = webhooks[0].id if webhooks else WebhookId(mint())
            await store.put_webhook(_webhook(app, self.webhook_id, target))

        async def is_bound() -> bool:
            return bool(await self._world.smsc.ask("binds"))

        await wait_until(is_bound, 30, "the adapter is bound")

    async def tell_also(self, paths: Sequence[str]) -> None:
        """Make the app tell the lean receiver at these paths too; none: only where it is told anyway."""
        async with self._store() as store:
            app = await store.app(self.running.app_id)
            assert app is not None
            for webhook in await store.webhooks(app.id):
                if webhook.id != self.webhook_id:
                    await store.delete_webhook(webhook.id)
            for path in paths:
                await store.put_webhook(_webhook(app, WebhookId(mint()), self._world.target(path)))

    async def add_endpoints(self, paths: Sequence[str]) -> list[Webhook]:
        """Webhooks of other apps at these paths of the lean receiver, five of an app as the API allows."""
        found = []
        async with self._store() as store:
            first = await store.app(self.running.app_id)
            assert first is not None
            for start in range(0, len(paths), MAX_WEBHOOKS):
                app = replace(first, id=AppId(mint()), channel_credentials=())
                await store.insert_app(app)
                for path in paths[start : start + MAX_WEBHOOKS]:
                    webhook = _webhook(app, WebhookId(mint()), self._world.target(path))
                    await store.put_webhook(webhook)
                    found.append(webhook)
        return found

    async def warm(self, messages: int) -> None:
        """Send so many that every process has done all of its work before, and caches are filled."""
        await self._world.reset()
        await self.send(Load(messages=messages))
        await self.told(messages)

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[ConfigurationStore]:
        pool = await open_pool(self._servers.postgres.dsn, size=1, service="benchmarks")
        try:
            keys = KeyRing.parse(self._home.secret_keys())
            yield ConfigurationStore(pool, keys, manifests(switchboard_channels))
        finally:
            await pool.close()


@asynccontextmanager
async def product(
    folder: Path,
    servers: BenchServers,
    world: World,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> AsyncIterator[Product]:
    """`switchboard up` on these servers, until the block ends."""
    home = Home(folder)
    variables = {
        **servers.environment,
        "SWITCHBOARD_PROJECT_REQUESTS_PER_SECOND": "0",
        "SWITCHBOARD_LOG_LEVEL": "warning",
        **(environment or {}),
    }
    await world.smsc.ask("reset")
    process = await installed.start(folder, "--no-simulator", *options, environment=variables)
    try:
        await installed.until_up(process, home)
        running = Product(home, world, servers)
        await running.prepare()
        yield running
    finally:
        await installed.stop(process)


def _webhook(app: App, webhook_id: WebhookId, target: str) -> Webhook:
    return Webhook(
        id=webhook_id, app_id=app.id, project_id=app.project_id, target=target,
        triggers=(Trigger.MESSAGE_DELIVERY,), secrets=("benchmark-secret",),
    )  # fmt: skip


def _bench_app(app: App) -> App:
    return replace(
        app,
        channel_credentials=(
            Credential(channel=SMS, static_bearer=StaticBearer(claimed_identity=ACCOUNT, token="unused")),
        ),
        rate_limits=RateLimits(outbound=UNPACED, webhooks=UNPACED),
        dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=7),
    )


def _smsc_account(port: int) -> bytes:
    return msgspec.json.encode(
        {
            "host": "127.0.0.1",
            "port": port,
            "system_id": ACCOUNT,
            "password": "password",
            "default_sender": "46700000001",
            "window": 500,
            "messages_per_second": None,
            "max_binds": 1,
            "first_reconnect_seconds": 0.1,
        }
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown")
    return {"cpus": len(os.sched_getaffinity(0)), "model": model, "load_before": os.getloadavg()[0]}
