"""What publishing promises, on the real broker."""

import asyncio
from collections import defaultdict

import pytest
from aiokafka import TopicPartition as KafkaPartition
from tests.contract.bus.conftest import Bus, numbered

from switchboard.bus import (
    BusError,
    BusMetrics,
    NotStarted,
    Outgoing,
    Producer,
    PublishFailed,
    TooLarge,
    TopicSpec,
    ensure_topics,
)
from switchboard.bus.murmur2 import partition_of
from switchboard.bus.topics import dead_letter_topic


def replaced() -> float:
    value: float = BusMetrics.of_process().producers_replaced._value.get()
    return value


@pytest.mark.parametrize("count", [1, 7, 8, 300])
async def test_what_is_acknowledged_is_in_kafka_where_kafkas_hash_puts_it(bus: Bus, count: int) -> None:
    topic = await bus.topic(partitions=5)

    await bus.producer.publish(numbered(topic, count, keys=50))

    records = await bus.everything(topic)
    assert sorted(int(record.value) for record in records) == list(range(count))
    assert all(record.partition == partition_of(record.key, 5) for record in records)


async def test_messages_of_one_key_keep_their_order_across_batches(bus: Bus) -> None:
    topic = await bus.topic(partitions=2)
    padding = b" " * 20_000
    messages = [Outgoing(topic, b"%d" % (n % 3), b"%d" % n + padding) for n in range(120)]

    await bus.producer.publish(messages)

    keys: dict[bytes, list[int]] = defaultdict(list)
    for record in await bus.everything(topic):
        keys[record.key].append(int(record.value))
    assert sum(map(len, keys.values())) == 120
    assert all(numbers == sorted(numbers) for numbers in keys.values())


async def test_messages_without_a_key_go_through(bus: Bus) -> None:
    topic = await bus.topic()

    await bus.producer.publish([Outgoing(topic, None, b"%d" % n) for n in range(20)])
    await bus.producer.publish([Outgoing(topic, None, b"20")])

    assert len(await bus.everything(topic)) == 21


async def test_many_single_sends_at_once_share_requests(bus: Bus) -> None:
    topic = await bus.topic()

    await asyncio.gather(*(bus.producer.publish([message]) for message in numbered(topic, 200)))

    assert len(await bus.everything(topic)) == 200


async def test_many_batches_for_one_partition_at_once_all_find_their_place(bus: Bus) -> None:
    topic = await bus.topic(partitions=1)

    await asyncio.gather(
        *(bus.producer.publish(numbered(topic, 10, keys=1, start=10 * n), timeout_seconds=30) for n in range(300))
    )

    assert [int(record.value) for record in await bus.everything(topic)] == list(range(3_000))


async def test_nothing_is_sent_when_one_message_is_too_large(bus: Bus) -> None:
    topic = await bus.topic()
    large = Outgoing(topic, b"k", b"x" * bus.settings.max_message_bytes)

    with pytest.raises(TooLarge) as refused:
        await bus.producer.publish([Outgoing(topic, b"k", b"small"), large])

    assert refused.value.index == 1
    assert await bus.everything(topic) == []


async def test_the_largest_message_allowed_goes_through(bus: Bus) -> None:
    topic = await bus.topic()
    message = Outgoing(topic, b"k", b"x" * (bus.settings.max_message_bytes - 100))

    await bus.producer.publish([message])
    await bus.producer.publish([message] * 9)

    assert len(await bus.everything(topic)) == 10


async def test_an_unknown_topic_fails_by_its_deadline(bus: Bus) -> None:
    with pytest.raises(PublishFailed) as failed:
        await bus.producer.publish([Outgoing(bus.settings.topic("nowhere"), b"k", b"v")], timeout_seconds=0.2)

    assert failed.value.indexes == (0,)


async def test_a_producer_out_of_sequence_is_replaced_and_the_messages_get_through(bus: Bus) -> None:
    topic = await bus.topic(partitions=1)
    await bus.producer.publish(numbered(topic, 3))
    client, before = bus.producer._client, replaced()
    assert client is not None
    client._txn_manager.increment_sequence_number(KafkaPartition(topic, 0), 1_000)

    await bus.producer.publish(numbered(topic, 20, start=3))
    await bus.producer.publish(numbered(topic, 2, start=23))

    assert replaced() == before + 1
    assert bus.producer._client is not client
    assert [int(record.value) for record in await bus.everything(topic)] == list(range(25))


async def test_a_producer_whose_sending_task_ended_is_replaced(bus: Bus) -> None:
    topic = await bus.topic(partitions=1)
    await bus.producer.publish(numbered(topic, 1))
    client = bus.producer._client
    assert client is not None
    sender = client._sender.sender_task
    sender.cancel()
    await asyncio.wait([sender])

    with pytest.raises(PublishFailed):
        await bus.producer.publish(numbered(topic, 1, start=1), timeout_seconds=0.2)
    await bus.producer.publish(numbered(topic, 1, start=2))

    assert bus.producer._client is not client
    assert 2 in [int(record.value) for record in await bus.everything(topic)]


async def test_only_what_is_not_acknowledged_is_reported(bus: Bus) -> None:
    topic = await bus.topic(partitions=1)
    nowhere = bus.settings.topic("nowhere")

    with pytest.raises(PublishFailed) as failed:
        await bus.producer.publish([Outgoing(topic, b"k", b"0"), Outgoing(nowhere, b"k", b"1")], timeout_seconds=0.5)

    assert failed.value.indexes == (1,)
    assert len(await bus.everything(topic)) == 1


async def test_publishing_needs_a_running_producer(bus: Bus) -> None:
    producer = Producer(bus.settings)
    with pytest.raises(NotStarted):
        await producer.publish([Outgoing("t", None, b"v")])
    await producer.start()
    await producer.stop()
    await producer.stop()

    with pytest.raises(NotStarted):
        await producer.publish([Outgoing("t", None, b"v")])


async def test_publishing_nothing_is_nothing(bus: Bus) -> None:
    await bus.producer.publish([])


async def test_topics_are_created_once_by_however_many_at_the_same_time(bus: Bus) -> None:
    bootstrap = bus.settings.bootstrap
    specs = [TopicSpec(bus.settings.topic(f"topic-{n}"), 2) for n in range(3)] + [dead_letter_topic(bus.settings)]

    await asyncio.gather(*(ensure_topics(bootstrap, specs) for _ in range(4)))

    assert await bus.ends(specs[0].name) == {0: 0, 1: 0}


async def test_an_existing_topic_is_left_as_it_is(bus: Bus) -> None:
    topic = await bus.topic(partitions=2)

    await ensure_topics(bus.settings.bootstrap, [TopicSpec(topic, 6)])

    assert len(await bus.ends(topic)) == 2


async def test_a_topic_the_broker_refuses_is_named(bus: Bus) -> None:
    with pytest.raises(BusError, match="no topic name"):
        await ensure_topics(bus.settings.bootstrap, [TopicSpec("no topic name", 1)])
