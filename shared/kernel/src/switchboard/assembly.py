"""The parts that every composition root puts together in the same way: keys, configuration, producer, consumers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from switchboard.bus import BusSettings, Consumer, LoopLag, Producer, Watchdog
from switchboard.channel.manifest import Manifest
from switchboard.configuration import Configuration, ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.runtime import Runtime, S
from switchboard.secrets import KeyRing
from switchboard.settings import CommonSettings, SettingsError

#: What the key for record keys is derived for.
_RECORD_KEYS: Final = "record keys"


def key_ring(settings: CommonSettings) -> KeyRing:
    """The keys for secrets at rest. Raises SettingsError if they are no keys."""
    try:
        return KeyRing.parse(settings.secret_keys.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"SWITCHBOARD_SECRET_KEYS: {error}") from None


def record_key(keys: KeyRing) -> bytes:
    """The installation's key for record keys: the same person's records meet in one partition, and nobody is named."""
    return keys.derive(_RECORD_KEYS)


def bus_settings(settings: CommonSettings, service: str) -> BusSettings:
    """How this service reaches Kafka."""
    return BusSettings(
        bootstrap=settings.kafka_bootstrap,
        topic_prefix=settings.topic_prefix,
        client_id=service,
        member_ordinal=settings.ordinal,
    )


@asynccontextmanager
async def configured(
    runtime: Runtime[S], keys: KeyRing, manifests: Mapping[ChannelName, Manifest]
) -> AsyncIterator[Configuration]:
    """The configuration cache, listening for changes."""
    configuration = Configuration(ConfigurationStore(runtime.pool, keys, manifests))
    await configuration.start()
    try:
        yield configuration
    finally:
        await configuration.stop()


@asynccontextmanager
async def producing(runtime: Runtime[S]) -> AsyncIterator[Producer]:
    """A started producer."""
    producer = Producer(bus_settings(runtime.settings, runtime.service))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(runtime: Runtime[S], consumers: Sequence[Consumer]) -> AsyncIterator[None]:
    """Run consumers under a watchdog; on the way out they drain and commit. Liveness is the watchdog."""
    lag = LoopLag()
    watchdog = Watchdog(consumers)
    started: list[Consumer] = []
    try:
        for consumer in consumers:
            await consumer.start()
            started.append(consumer)
        watchdog.start()
        lag.start()
        runtime.check_alive("consumers", lambda: watchdog.is_live)
        yield
    finally:
        lag.stop()
        watchdog.stop()
        for consumer in started:
            await consumer.stop()


@asynccontextmanager
async def running(runtime: Runtime[S], **loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run endless loops beside the consumers. One that ends by an error ends the process: a new one may fare better."""
    tasks = {name: asyncio.create_task(_endless(loop), name=name) for name, loop in loops.items()}
    for name, task in tasks.items():
        task.add_done_callback(partial(_report, runtime, name))
    try:
        yield
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _endless(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()


def _report(runtime: Runtime[S], name: str, task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        error = task.exception()
        runtime.fail(f"{name} ended: {type(error).__name__ if error else 'it returned'}")
