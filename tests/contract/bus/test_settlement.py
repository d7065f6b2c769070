"""A moment is settled when the groups have committed everything that existed then."""

import asyncio
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from switchboard.bus import BusSettings, TopicSpec, ensure_topics
from switchboard.bus.settlement import Settlement


async def test_what_is_not_committed_is_not_settled(kafka: str, topic_prefix: str):
    topic, group = f"{topic_prefix}facts", f"{topic_prefix}readers"
    await ensure_topics(kafka, [TopicSpec(topic, 2)])
    moments = iter(datetime(2026, 11, 21, 12, minute, tzinfo=UTC) for minute in range(60))

    async def now() -> datetime:
        return next(moments)

    settlement = Settlement(BusSettings(bootstrap=kafka), {group: topic}, now)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    reader = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    reader.assign([TopicPartition(topic, 0)])
    try:
        await producer.start()
        await reader.start()
        nothing_yet = await settlement.settled()
        await producer.send_and_wait(topic, b"one", partition=0)
        uncommitted = [await settlement.settled(), await settlement.settled()]
        await reader.commit({TopicPartition(topic, 0): OffsetAndMetadata(1, "")})
        committed = await settlement.settled()
    finally:
        await settlement.stop()
        await reader.stop()
        await producer.stop()

    assert nothing_yet is not None
    assert nothing_yet.minute == 0
    assert [moment.minute for moment in uncommitted if moment] == [0, 0]
    assert committed is not None
    assert committed.minute == 1


async def test_an_absent_broker_settles_nothing(topic_prefix: str):
    async def now() -> datetime:
        return datetime.now(UTC)

    settlement = Settlement(BusSettings(bootstrap="127.0.0.1:1"), {"g": "t"}, now)

    assert await settlement.settled() is None


async def test_a_topic_that_is_not_there_settles_nothing(kafka: str, topic_prefix: str):
    async def now() -> datetime:
        return datetime.now(UTC)

    settlement = Settlement(BusSettings(bootstrap=kafka), {f"{topic_prefix}g": f"{topic_prefix}absent"}, now)
    try:
        assert await settlement.settled() is None
    finally:
        await settlement.stop()


async def test_several_may_ask_at_once(kafka: str, topic_prefix: str):
    topic = f"{topic_prefix}facts"
    await ensure_topics(kafka, [TopicSpec(topic, 1)])

    async def now() -> datetime:
        return datetime.now(UTC)

    settlement = Settlement(BusSettings(bootstrap=kafka), {f"{topic_prefix}g": topic}, now)
    try:
        answers = await asyncio.gather(*(settlement.settled() for _ in range(8)))
    finally:
        await settlement.stop()

    assert None not in answers
