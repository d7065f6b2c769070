"""The bus while its broker is killed, restarted, frozen or not there at all."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
from tests.contract.bus.conftest import MakeBus, Seen, numbered

from switchboard.bus import BusError, BusSettings, Outgoing, Producer, PublishFailed, WaitCause
from switchboard.embedded import EmbeddedKafka
from switchboard.testing import free_port, wait_until

pytestmark = pytest.mark.fault


def impatient(bootstrap: str) -> BusSettings:
    return BusSettings(
        bootstrap=bootstrap,
        topic_prefix="fault.",
        client_id="test",
        commit_interval_seconds=0.05,
        commit_timeout_seconds=1.0,
        probe_interval_seconds=0.1,
        publish_timeout_seconds=1.0,
        connect_timeout_seconds=3.0,
    )


async def test_a_broker_killed_under_load_loses_nothing_that_was_acknowledged(
    own_kafka: Callable[..., EmbeddedKafka], make_bus: MakeBus
) -> None:
    broker = own_kafka()
    bus = await make_bus(impatient(broker.bootstrap))
    topic, seen = await bus.topic(), Seen()
    consumer = await bus.consume(topic, seen)
    acknowledged: set[int] = set()
    refused, going, number = 0, True, 0

    async def load() -> None:
        nonlocal refused, number
        while going:
            messages = numbered(topic, 20, start=number)
            number += 20
            while True:
                try:
                    await bus.producer.publish(messages)
                except PublishFailed as failed:
                    refused += 1
                    messages = [messages[index] for index in failed.indexes]
                else:
                    break
            acknowledged.update(range(number - 20, number))

    loading = asyncio.create_task(load())
    await wait_until(lambda: len(seen.records) > 200)
    broker.kill()
    await wait_until(lambda: refused >= 2 and consumer.state.waiting.get(WaitCause.BROKER) is not None)
    await broker.start_async()
    back = len(acknowledged)
    await wait_until(lambda: len(acknowledged) > back + 200, 40)
    going = False
    await loading
    await wait_until(lambda: acknowledged <= {int(value) for value in seen.values}, 40)

    async def committed() -> bool:
        return await bus.committed(topic) == await bus.ends(topic)

    assert await wait_until(committed, 40)
    assert not bus.exits


async def test_a_frozen_broker_delays_but_hangs_nobody(
    own_kafka: Callable[..., EmbeddedKafka], make_bus: MakeBus
) -> None:
    broker = own_kafka()
    bus = await make_bus(impatient(broker.bootstrap))
    topic, seen = await bus.topic(), Seen()
    consumer = await bus.consume(topic, seen)
    other = Producer(bus.settings)
    await other.start()
    await bus.producer.publish(numbered(topic, 10))
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(PublishFailed):
                await bus.producer.publish([Outgoing(topic, b"k", b"10")])
        with pytest.raises(PublishFailed):
            await other.publish(numbered(topic, 10, start=11))
        await asyncio.wait_for(other.stop(), 10)
        await wait_until(lambda: consumer.state.waiting.get(WaitCause.BROKER) is not None)
    finally:
        os.kill(broker.pid, signal.SIGCONT)

    async def published() -> bool:
        try:
            await bus.producer.publish([Outgoing(topic, b"k", b"99")])
        except PublishFailed:
            return False
        return True

    assert await wait_until(published, 40)
    await wait_until(lambda: b"99" in seen.values, 40)
    await wait_until(lambda: consumer.state.waiting.get(WaitCause.BROKER) is None, 40)
    assert not bus.exits


async def test_a_consumer_stops_although_the_broker_is_gone(
    own_kafka: Callable[..., EmbeddedKafka], make_bus: MakeBus
) -> None:
    broker = own_kafka()
    bus = await make_bus(impatient(broker.bootstrap))
    topic, seen = await bus.topic(), Seen()
    consumer = await bus.consume(topic, seen)
    await bus.producer.publish(numbered(topic, 10))
    await wait_until(lambda: len(seen.records) == 10)
    broker.kill()

    await asyncio.wait_for(consumer.stop(), 15)
    await asyncio.wait_for(bus.producer.stop(), 15)


async def test_starting_without_a_broker_is_one_clear_error() -> None:
    settings = impatient(f"127.0.0.1:{free_port()}")
    with pytest.raises(PublishFailed, match="cannot connect"):
        await Producer(settings).start()


async def test_a_consumer_without_a_broker_is_one_clear_error(bus_settings: BusSettings, make_bus: MakeBus) -> None:
    bus = await make_bus(bus_settings)
    settings = impatient(f"127.0.0.1:{free_port()}")
    with pytest.raises(BusError, match="cannot join"):
        await bus.consumer("fault.nowhere", Seen(), settings=settings).start()
