"""A bus on the real broker, and a place to put consumers and producers so that every one of them is stopped."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from switchboard.bus import (
    BusSettings,
    Consumer,
    DeadLetterCause,
    Outgoing,
    Producer,
    Record,
    TopicSpec,
    dead_letter_topic,
    ensure_topics,
)
from switchboard.bus.clock import SystemClock


class Seen:
    """A batch handler that remembers every record, in order."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def __call__(self, records: Sequence[Record], /) -> None:
        self.records.extend(records)

    @property
    def values(self) -> list[bytes]:
        return [record.value for record in self.records]

    def by_key(self) -> dict[bytes | None, list[int]]:
        """The numbers that are the values, by key, in the order they were handled."""
        keys: dict[bytes | None, list[int]] = defaultdict(list)
        for record in self.records:
            keys[record.key].append(int(record.value))
        return keys


class Bus:
    """One installation of the bus: its settings, its topics, whatever runs on it."""

    def __init__(self, settings: BusSettings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.dead: list[tuple[Record, DeadLetterCause]] = []
        self.exits: list[int] = []
        self.producer = Producer(settings)
        self._stack = stack

    async def start(self) -> None:
        await ensure_topics(self.settings.bootstrap, [dead_letter_topic(self.settings)])
        await self.producer.start()
        self._stack.push_async_callback(self.producer.stop)

    async def topic(self, subject: str = "facts", partitions: int = 3) -> str:
        name = self.settings.topic(subject)
        await ensure_topics(self.settings.bootstrap, [TopicSpec(name, partitions)])
        return name

    def consumer(self, topic: str, handle: Any, *, settings: BusSettings | None = None, **options: Any) -> Consumer:
        options.setdefault("group", f"{self.settings.topic_prefix}group")
        options.setdefault("on_dead_letter", self._on_dead_letter)
        consumer = Consumer(
            settings or self.settings,
            topics=[topic],
            handle=handle,
            producer=self.producer,
            exit=self.exits.append,
            **options,
        )
        self._stack.push_async_callback(consumer.stop)
        return consumer

    async def consume(self, topic: str, handle: Any, **options: Any) -> Consumer:
        consumer = self.consumer(topic, handle, **options)
        await consumer.start()
        return consumer

    async def _on_dead_letter(self, record: Record, cause: DeadLetterCause) -> None:
        self.dead.append((record, cause))

    async def committed(self, topic: str, group: str | None = None) -> dict[int, int]:
        """What the group has committed, by partition, as the broker says."""
        async with _reader(self.settings, group=group or f"{self.settings.topic_prefix}group") as reader:
            places = await _places(reader, topic)
            return {place.partition: await reader.committed(place) or 0 for place in places}

    async def ends(self, topic: str) -> dict[int, int]:
        """Where the partitions end."""
        async with _reader(self.settings) as reader:
            ends = await reader.end_offsets(await _places(reader, topic))
            return {place.partition: end for place, end in ends.items()}

    async def everything(self, topic: str) -> list[Any]:
        """All records of a topic, read by nobody's group."""
        async with _reader(self.settings) as reader:
            places = await _places(reader, topic)
            reader.assign(places)
            await reader.seek_to_beginning(*places)
            left = sum((await reader.end_offsets(places)).values())
            records: list[Any] = []
            while len(records) < left:
                for lot in (await reader.getmany(timeout_ms=200)).values():
                    records.extend(lot)
            return records


def _reader(settings: BusSettings, group: str | None = None) -> Any:
    return AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, group_id=group, enable_auto_commit=False)


async def _places(reader: Any, topic: str) -> list[KafkaPartition]:
    await reader._client.force_metadata_update()
    await reader._client.add_topic(topic)
    return [KafkaPartition(topic, partition) for partition in sorted(reader.partitions_for_topic(topic))]


def numbered(topic: str, count: int, *, keys: int = 7, start: int = 0) -> list[Outgoing]:
    """Messages whose values are rising numbers, over so many keys."""
    return [Outgoing(topic, b"key-%d" % (n % keys), b"%d" % n) for n in range(start, start + count)]


class QuickClock(SystemClock):
    """Real time with short sleeps, so that back-off does not make tests slow."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    def monotonic(self) -> float:
        return 100.0 * super().monotonic()


@pytest.fixture
def bus_settings(kafka: str, topic_prefix: str) -> BusSettings:
    # Patient where a busy machine would make a test fail, quick where a test would wait.
    return BusSettings(
        bootstrap=kafka,
        topic_prefix=topic_prefix,
        client_id="test",
        commit_interval_seconds=0.05,
        session_timeout_ms=25_000,
        publish_timeout_seconds=20.0,
        connect_timeout_seconds=30.0,
    )


@pytest.fixture
async def bus(bus_settings: BusSettings) -> AsyncIterator[Bus]:
    async with AsyncExitStack() as stack:
        bus = Bus(bus_settings, stack)
        await bus.start()
        yield bus


MakeBus = Callable[[BusSettings], Awaitable[Bus]]


@pytest.fixture
async def make_bus() -> AsyncIterator[MakeBus]:
    """A bus on a broker of the test's own."""
    async with AsyncExitStack() as stack:

        async def make(settings: BusSettings) -> Bus:
            bus = Bus(settings, stack)
            await bus.start()
            return bus

        yield make
