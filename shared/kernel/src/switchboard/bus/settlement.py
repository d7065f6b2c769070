"""How far a consumer group is settled: a moment before which every record it handled has its offset committed.

What may be thrown away once a record can never be read again (a content that is not to be kept) asks for this.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct

from switchboard.bus.settings import BusSettings

Offsets = Mapping[TopicPartition, int]


class _Sample(Struct, frozen=True):
    """Where the topics ended at a moment."""

    taken_at: datetime
    ends: Offsets


class Settlement:
    """Watches groups over all their members.

    At a moment the topics' ends are noted; when the groups' commits have reached them, everything that existed at that
    moment is settled. Under constant load the answer lags by one such round, and never stands still.
    """

    def __init__(
        self, settings: BusSettings, groups: Mapping[str, str], now: Callable[[], Awaitable[datetime]]
    ) -> None:
        """`groups` maps a group to the topic it reads; `now` is the clock the answer is in."""
        self._settings = settings
        self._groups = dict(groups)
        self._now = now
        self._sample: _Sample | None = None
        self._settled: datetime | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._looking = asyncio.Lock()

    async def settled(self) -> datetime | None:
        """The latest moment known to be settled. None while nothing is known; an absent broker changes nothing.

        Several may ask at once: one look serves them all in turn.
        """
        async with self._looking:
            try:
                await self._connect()
                if self._sample is None:
                    self._sample = _Sample(await self._now(), await self._ends())
                if await self._reached(self._sample.ends):
                    self._settled, self._sample = self._sample.taken_at, None
            except (KafkaError, OSError):
                await self.stop()
            return self._settled

    async def stop(self) -> None:
        """Close the connections. They are opened again when needed."""
        consumer, admin = self._consumer, self._admin
        self._consumer = self._admin = None
        if consumer is not None:
            await consumer.stop()
        if admin is not None:
            await admin.close()

    async def _connect(self) -> None:
        servers = self._settings.bootstrap.split(",")
        if self._consumer is None:
            # Kept before it is started: what does not start is stopped, too.
            self._consumer = AIOKafkaConsumer(bootstrap_servers=servers, client_id=self._settings.client_id)
            await self._consumer.start()
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=servers, client_id=self._settings.client_id)
            await self._admin.start()

    async def _ends(self) -> Offsets:
        """The end of every partition that holds anything."""
        assert self._consumer is not None
        assert self._admin is not None
        described = await self._admin.describe_topics(list(set(self._groups.values())))
        if any(topic["error_code"] or not topic["partitions"] for topic in described):
            # A topic that cannot be described now is not one without records.
            raise KafkaError("a topic cannot be described")
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        begins = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        return {partition: end for partition, end in ends.items() if end > begins[partition]}

    async def _reached(self, ends: Offsets) -> bool:
        assert self._admin is not None
        for group, topic in self._groups.items():
            committed = await self._admin.list_consumer_group_offsets(group)
            for partition, end in ends.items():
                if partition.topic == topic and _offset(committed.get(partition)) < end:
                    return False
        return True


def _offset(committed: object) -> int:
    """The committed offset, or -1 where a group has none."""
    return int(getattr(committed, "offset", -1))
