"""Publishes messages and says which of them Kafka has.

A wrapper around aiokafka's idempotent producer, which by itself never gives up: with the broker away `send` does not
fail and `stop` does not return, and after an outage it may answer every send with an out-of-order sequence. So every
wait here has a deadline, and a producer that is fenced, out of sequence or silent is replaced by a new one.
"""

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
)
from aiokafka.errors import UnknownProducerId as UnknownProducer

from switchboard.bus.errors import NotStarted, PublishFailed, TooLarge
from switchboard.bus.metrics import BusMetrics
from switchboard.bus.murmur2 import partition_of
from switchboard.bus.record import Outgoing
from switchboard.bus.settings import BusSettings

log = structlog.get_logger(__name__)

#: From this many messages on they are packed into batches here, 1.9 µs each; below, aiokafka packs them, 8 to 10 µs.
_PACK_FROM: Final = 8
#: Publishes in a row that hear nothing before their deadline, after which the producer is replaced.
_SILENCES_ALLOWED: Final = 2
#: What a record costs in bytes beside its key, value and headers, at most.
_FRAMING_BYTES: Final = 64
#: How long a producer that is being replaced may still deliver what it has.
_RETIRE_SECONDS: Final = 1.0

_BROKEN_PRODUCER: Final = (
    OutOfOrderSequenceNumber,
    ProducerFenced,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    UnknownProducer,
    ProducerClosed,
)


class Producer:
    """An idempotent producer, acks=all, with a deadline around everything.

    Messages of one `publish` with one key keep their order. Two overlapping calls are in no order.
    """

    def __init__(self, settings: BusSettings, *, metrics: BusMetrics | None = None) -> None:
        self._settings = settings
        self._metrics = metrics or BusMetrics.of_process()
        self._client: AIOKafkaProducer | None = None
        self._opening: asyncio.Task[AIOKafkaProducer] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        # One batch at a time waits for its place in a partition: aiokafka counts the wait of several many times over.
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._silences = 0
        self._running = False

    async def start(self) -> None:
        """Connect. Raises PublishFailed if the broker does not answer in `connect_timeout_seconds`."""
        self._running = True
        try:
            await self._ready(self._now() + self._settings.connect_timeout_seconds, ())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Deliver what is under way, within `connect_timeout_seconds`, and disconnect. Never hangs."""
        self._running = False
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
            self._opening = None
        if (client := self._client) is not None:
            self._client = None
            await _close(client, self._settings.connect_timeout_seconds)
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def publish(self, messages: Sequence[Outgoing], *, timeout_seconds: float | None = None) -> None:
        """Publish messages and return when every in-sync replica has all of them.

        Raises PublishFailed with the indexes not acknowledged before the deadline (those may still be in Kafka, or
        get there), TooLarge before anything is sent, NotStarted.
        """
        if not self._running:
            raise NotStarted("the producer is not running")
        if not messages:
            return
        await self._publish(messages, timeout_seconds, self._settings.max_message_bytes)

    async def publish_enclosed(self, message: Outgoing) -> None:
        """Publish a message that wraps another one whole, so it may be twice as large as `publish` allows."""
        if not self._running:
            raise NotStarted("the producer is not running")
        await self._publish([message], None, 2 * self._settings.max_message_bytes)

    async def _publish(self, messages: Sequence[Outgoing], timeout_seconds: float | None, limit: int) -> None:
        for index, message in enumerate(messages):
            if (size := _size_bytes(message)) > limit:
                raise TooLarge(index, size, limit)
        seconds = self._settings.publish_timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = self._now() + seconds
        pending: Sequence[int] = range(len(messages))
        for may_resend in (True, False):
            client = await self._ready(deadline, pending)
            pending, error = await self._send(client, messages, pending, deadline)
            if not pending:
                self._silences = 0
                break
            broken = isinstance(error, _BROKEN_PRODUCER) or _is_dead(client)
            if error is None:
                self._silences += 1
                broken = broken or self._silences >= _SILENCES_ALLOWED
            if broken:
                self._replace(client, error)
            if error is None or not (broken and may_resend):
                self._metrics.publish_failed(messages[index].topic for index in pending)
                why = "no answer before the deadline" if error is None else type(error).__name__
                raise PublishFailed(pending, why) from error
        self._metrics.published(messages)

    async def _send(
        self, client: AIOKafkaProducer, messages: Sequence[Outgoing], indexes: Sequence[int], deadline: float
    ) -> tuple[list[int], Exception | None]:
        """Send and wait. Returns the indexes not acknowledged and the first error, None meaning silence."""
        sent: list[tuple[asyncio.Future[Any], Sequence[int]]] = []
        error: Exception | None = None
        try:
            async with asyncio.timeout_at(deadline):
                if len(indexes) < _PACK_FROM:
                    await self._send_each(client, messages, indexes, sent)
                else:
                    await self._send_packed(client, messages, indexes, sent)
        except TimeoutError:
            pass
        except (KafkaError, OSError) as failure:
            error = failure
        if sent:
            await asyncio.wait([future for future, _ in sent], timeout=max(0.0, deadline - self._now()))
        unacknowledged = set(indexes)
        for future, members in sent:
            if not future.done():
                continue
            if future.cancelled():
                error = error or ProducerClosed()
            elif (failure_of_batch := future.exception()) is not None:
                if error is None and isinstance(failure_of_batch, Exception):
                    error = failure_of_batch
            else:
                unacknowledged.difference_update(members)
        return sorted(unacknowledged), error

    async def _send_each(
        self,
        client: AIOKafkaProducer,
        messages: Sequence[Outgoing],
        indexes: Sequence[int],
        sent: list[tuple[asyncio.Future[Any], Sequence[int]]],
    ) -> None:
        for index in indexes:
            message = messages[index]
            future = await client.send(
                message.topic,
                message.value,
                key=message.key,
                headers=list(message.headers.items()),
            )
            future.add_done_callback(_forget)
            sent.append((future, (index,)))

    async def _send_packed(
        self,
        client: AIOKafkaProducer,
        messages: Sequence[Outgoing],
        indexes: Sequence[int],
        sent: list[tuple[asyncio.Future[Any], Sequence[int]]],
    ) -> None:
        partitions: dict[str, int] = {}
        keyless: dict[str, int] = {}
        lots: dict[tuple[str, int], list[int]] = {}
        for index in indexes:
            message = messages[index]
            topic = message.topic
            count = partitions.get(topic)
            if count is None:
                count = partitions[topic] = len(await client.partitions_for(topic))
                keyless[topic] = random.randrange(count)
            partition = keyless[topic] if message.key is None else partition_of(message.key, count)
            lots.setdefault((topic, partition), []).append(index)
        now_ms = time.time_ns() // 1_000_000
        for (topic, partition), members in lots.items():
            batch, inside = client.create_batch(), list[int]()
            for index in members:
                message = messages[index]
                record = {
                    "timestamp": now_ms,
                    "key": message.key,
                    "value": message.value,
                    "headers": list(message.headers.items()),
                }
                if batch.append(**record) is None:
                    await self._send_batch(client, batch, topic, partition, inside, sent)
                    batch, inside = client.create_batch(), []
                    batch.append(**record)
                inside.append(index)
            await self._send_batch(client, batch, topic, partition, inside, sent)

    async def _send_batch(
        self,
        client: AIOKafkaProducer,
        batch: Any,
        topic: str,
        partition: int,
        inside: Sequence[int],
        sent: list[tuple[asyncio.Future[Any], Sequence[int]]],
    ) -> None:
        # Closed, no single send slips into it.
        batch.close()
        async with self._turns[topic, partition]:
            future = await client.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_forget)
        sent.append((future, inside))

    # The client behind it, and its successor

    async def _ready(self, deadline: float, indexes: Sequence[int]) -> AIOKafkaProducer:
        if self._client is not None:
            return self._client
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        # Waited for, not awaited: one caller's deadline must not cancel what all of them wait for.
        await asyncio.wait([opening], timeout=max(0.0, deadline - self._now()))
        if not opening.done():
            raise PublishFailed(indexes, "the broker does not answer")
        if self._opening is opening:
            self._opening = None
            if not opening.cancelled() and opening.exception() is None:
                self._client = opening.result()
        if opening.cancelled() or not self._running:
            raise NotStarted("the producer is not running")
        if (error := opening.exception()) is not None:
            raise PublishFailed(indexes, f"cannot connect: {type(error).__name__}") from error
        return opening.result()

    async def _open(self) -> AIOKafkaProducer:
        settings = self._settings
        client = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap.split(","),
            client_id=settings.client_id,
            acks="all",
            enable_idempotence=True,
            # What comes while a request is under way shares the next one: to wait for company first gains nothing.
            linger_ms=0,
            max_batch_size=settings.max_batch_bytes,
            max_request_size=2 * settings.max_message_bytes + settings.max_batch_bytes,
            request_timeout_ms=max(1_000, int(settings.publish_timeout_seconds * 2_000)),
            retry_backoff_ms=100,
            partitioner=_choose_partition,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                await client.start()
        except BaseException:
            await _close(client, 0.0)
            raise
        return client

    def _replace(self, client: AIOKafkaProducer, error: Exception | None) -> None:
        if self._client is not client:
            return
        self._client = None
        self._silences = 0
        self._metrics.producers_replaced.inc()
        log.warning("bus.producer_replaced", error=type(error).__name__ if error else "silence")
        task = asyncio.create_task(_close(client, _RETIRE_SECONDS))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _size_bytes(message: Outgoing) -> int:
    size = len(message.value) + len(message.key or b"") + _FRAMING_BYTES
    for name, value in message.headers.items():
        # A name may take up to four bytes a character, and two lengths are written with it.
        size += 4 * len(name) + len(value) + 10
    return size


def _choose_partition(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    if key is None:
        return random.choice(available or partitions)
    return partition_of(key, len(partitions))


def _is_dead(client: AIOKafkaProducer) -> bool:
    """Whether the task that sends has ended: aiokafka then fails every send with the error of that day."""
    task = client._sender.sender_task
    return task is None or task.done()


def _forget(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def _close(client: AIOKafkaProducer, seconds: float) -> None:
    """Stop a producer within that time, or take it apart: its own `stop` waits for the broker for ever."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(seconds):
            await client.stop()
            return
    client._closed = True
    # Failing what it still holds wakes its own waiters; whoever published has given up or gets ProducerClosed.
    client._message_accumulator.fail_all(ProducerClosed())
    sender = client._sender.sender_task
    if sender is not None:
        sender.cancel()
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_RETIRE_SECONDS):
            await client.client.close()
    if sender is not None:
        await asyncio.wait([sender], timeout=_RETIRE_SECONDS)
