"""The fixtures every other test stands on."""

from __future__ import annotations

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from switchboard.testing import wait_until


async def test_each_test_has_a_database_with_every_migration_applied(database: str) -> None:
    connection = await asyncpg.connect(database)
    tables = await connection.fetchval("SELECT count(*) FROM switchboard.migrations")
    await connection.close()

    assert tables > 0


async def test_a_record_written_under_the_prefix_is_read_back(kafka: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}echo"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait(topic, b"hello")
    await producer.stop()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, group_id=topic, auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()

    assert record.value == b"hello"


async def test_waiting_returns_what_became_true() -> None:
    looks: list[int] = []

    def third() -> int:
        looks.append(0)
        return len(looks) if len(looks) == 3 else 0

    assert await wait_until(third) == 3


async def test_waiting_in_vain_says_for_what_and_how_things_stand() -> None:
    async def never() -> list[str]:
        return []

    with pytest.raises(AssertionError, match=r"not so within 0 s: two receipts; the last look gave \[\]"):
        await wait_until(never, timeout_seconds=0, describe="two receipts")
