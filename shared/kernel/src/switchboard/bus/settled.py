"""Tells up to which moment everything that groups have handled is committed.

What a handler wrote in the database may be thrown away only when its record cannot come again. A record comes again
until its offset is committed, so: note the clock, then the ends of the partitions; once all commits have reached
those ends, no record that was handled before that moment comes again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct

from switchboard.bus.errors import Transient, WaitCause
from switchboard.bus.settings import BusSettings


class _Ends(Struct, frozen=True):
    """Where partitions ended at a moment, those that held anything."""

    at: datetime
    ends: Mapping[TopicPartition, int]


class Settled:
    """The latest moment before which every handled record is committed, over all members of all these groups."""

    def __init__(
        self, settings: BusSettings, groups: Mapping[str, Sequence[str]], now: Callable[[], Awaitable[datetime]]
    ) -> None:
        """`groups` are the groups with the topics they read; `now` is the clock the answer is given on."""
        self._groups = groups
        self._now = now
        servers = settings.bootstrap.split(",")
        timeout_ms = int(settings.connect_timeout_seconds * 1_000)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, client_id=settings.client_id, request_timeout_ms=timeout_ms
        )
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=servers, client_id=settings.client_id, request_timeout_ms=timeout_ms
        )
        self._ends: _Ends | None = None
        self._settled: datetime | None = None

    async def start(self) -> None:
        """Connect. Raises Transient if the broker is away."""
        try:
            await self._consumer.start()
            await self._admin.start()
        except (KafkaError, OSError) as error:
            raise Transient(type(error).__name__, cause=WaitCause.BROKER) from error

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()
        await self._admin.close()

    async def __call__(self) -> datetime | None:
        """The moment, or None while it is not known yet. Raises Transient if the broker is away."""
        try:
            if self._ends is None:
                self._ends = await self._read_ends()
            if await self._is_reached(self._ends):
                self._settled = self._ends.at
                self._ends = await self._read_ends()
        except (KafkaError, OSError) as error:
            raise Transient(type(error).__name__, cause=WaitCause.BROKER) from error
        return self._settled

    async def _read_ends(self) -> _Ends:
        at = await self._now()
        partitions = await self._partitions()
        begins = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        return _Ends(at, {place: end for place, end in ends.items() if end > begins[place]})

    async def _partitions(self) -> list[TopicPartition]:
        """All partitions. Raises Transient if a topic is not known: no answer is better than one without it."""
        topics = sorted({topic for topics in self._groups.values() for topic in topics})
        described = await self._admin.describe_topics(topics)
        known = {topic["topic"]: topic["partitions"] for topic in described if not topic["error_code"]}
        if missing := [topic for topic in topics if not known.get(topic)]:
            raise Transient(f"no partitions are known of {', '.join(missing)}", cause=WaitCause.BROKER)
        return [TopicPartition(topic, place["partition"]) for topic in topics for place in known[topic]]

    async def _is_reached(self, noted: _Ends) -> bool:
        for group, topics in self._groups.items():
            committed = await self._admin.list_consumer_group_offsets(group)
            for place, end in noted.ends.items():
                # Without a commit, or with -1, the group has finished nothing of this partition.
                if place.topic in topics and (place not in committed or committed[place].offset < end):
                    return False
        return True
