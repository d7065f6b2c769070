"""What fault tests do to topics behind the services' backs: read, write, reset a group, let retention pass."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord


async def read_all(kafka: str, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
    """Every record of a topic that is still there."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[ConsumerRecord[bytes, bytes]] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            batches = await consumer.getmany(timeout_ms=200)
            found += [record for batch in batches.values() for record in batch]
        return found
    finally:
        await consumer.stop()


async def write(
    kafka: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None, Mapping[str, bytes]]]
) -> None:
    """Write records: key, value, headers."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(topic, value=value, key=key, headers=list(headers.items()))
    finally:
        await producer.stop()


async def begin_anew(kafka: str, group: str, topic: str) -> int:
    """Set a group's offsets back to the first record that is there. Returns how many records it will see again.

    Its members must have stopped; static ones are members until their session is over.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        deadline = asyncio.get_running_loop().time() + 30
        while True:
            try:
                await consumer.commit(begins)
                return sum(ends[partition] - begins[partition] for partition in partitions)
            except KafkaError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.5)
    finally:
        await consumer.stop()


async def let_retention_pass(kafka: str, topics: Iterable[str]) -> None:
    """Delete every record of these topics, as their retention does when its time has come."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await admin.start()
    await consumer.start()
    try:
        for topic in topics:
            partitions = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
            ends = await consumer.end_offsets(partitions)
            await admin.delete_records({part: RecordsToDelete(before_offset=end) for part, end in ends.items()})
    finally:
        await consumer.stop()
        await admin.close()


async def _partitions(consumer: AIOKafkaConsumer[bytes, bytes], topic: str) -> list[int]:
    # Asked for first: a consumer that subscribes to nothing knows no topic.
    await consumer._client.add_topic(topic)
    found = consumer.partitions_for_topic(topic)
    while not found:
        await consumer._client.force_metadata_update()
        found = consumer.partitions_for_topic(topic)
    return sorted(found)
