"""What the outbox put on the topic of changes."""

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from switchboard.bus import TopicSpec, ensure_topics
from switchboard.records import ChangesRecord
from switchboard.store.pool import Pool
from switchboard.testing import wait_until
from switchboard.topics import CHANGES


class ChangesTopic:
    """The topic of changes, once the outbox is empty."""

    def __init__(self, bootstrap: str, name: str, pool: Pool) -> None:
        self._bootstrap = bootstrap
        self._name = name
        self._pool = pool

    async def read(self) -> list[ChangesRecord]:
        """Every change told so far, in order. Waits until nothing is left to tell."""

        async def is_empty() -> bool:
            return not await self._pool.fetchval("SELECT count(*) FROM switchboard.outbox")

        await wait_until(is_empty, 10, "the outbox is empty")
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partition = TopicPartition(self._name, 0)
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            found: list[ChangesRecord] = []
            while await consumer.position(partition) < end:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    found += [CHANGES.decode(record.value, dict(record.headers)) for record in records]
            return found
        finally:
            await consumer.stop()


@pytest.fixture
async def changes(kafka: str, topic_prefix: str, pool: Pool) -> ChangesTopic:
    name = CHANGES.name(topic_prefix)
    await ensure_topics(kafka, [TopicSpec(name, partitions=1)])
    return ChangesTopic(kafka, name, pool)
