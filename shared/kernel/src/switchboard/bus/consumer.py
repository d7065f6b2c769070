"""Reads topics for one group, works the records off through a handler, and commits what is finished.

consumer = Consumer(settings, topics=[…], group="router.attempts", handle=on_attempts,
                    producer=producer, on_dead_letter=end_message)
await consumer.start()      # after everything the handler needs
…
await consumer.stop()       # before anything the handler needs: drains, commits, leaves

In a FastStream application: `FastStream(consumer.broker, after_startup=[consumer.start], on_shutdown=[consumer.stop])`.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError
from msgspec import Struct

from switchboard.bus.clock import Clock, SystemClock
from switchboard.bus.deadletter import encode_dead_letter
from switchboard.bus.errors import BusError, NotStarted, WaitCause
from switchboard.bus.frame import build_broker, build_subscriber
from switchboard.bus.handler import BatchHandler, InSlots
from switchboard.bus.metrics import BusMetrics
from switchboard.bus.policy import DeadLetterCause, KnownErrors
from switchboard.bus.producer import Producer
from switchboard.bus.record import Record, TopicPartition
from switchboard.bus.runner import OnDeadLetter, Runner
from switchboard.bus.settings import BusSettings
from switchboard.bus.watchdog import EXIT_CONSUMER_ENDED, EXIT_TOO_MANY_DEAD_LETTERS, Pulse

log = structlog.get_logger(__name__)

_PULSE_SECONDS: Final = 1.0
_POLL_MOST: Final = 500
_RETRY_POLL_SECONDS: Final = 1.0
_POSITION_SECONDS: Final = 0.5
_UNKNOWN_POSITION: Final = -1


class ConsumerState(Struct, frozen=True):
    """How a consumer is doing, for health endpoints and people. Ages are seconds."""

    group: str
    partitions: int
    #: Records read and not finished, and those of them that a handler has.
    in_flight: int
    in_hand: int
    #: Records in the assigned partitions that are not finished, as of the last probe.
    lag: int
    oldest_in_flight_seconds: float
    last_poll_seconds: float
    #: Records set aside, by what they wait for.
    waiting: Mapping[str, int]
    finished: int


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One member of a consumer group.

    Per key one record at a time and in order; a bound on what is in flight per partition; offsets committed when all
    before them are finished. `policy` says what follows an error.
    """

    def __init__(
        self,
        settings: BusSettings,
        *,
        topics: Sequence[str],
        group: str,
        handle: BatchHandler | InSlots,
        producer: Producer,
        on_dead_letter: OnDeadLetter,
        max_batch: int = 500,
        max_in_flight_per_partition: int = 2_000,
        concurrency: int = 4,
        member: str | None = None,
        known: KnownErrors | None = None,
        exit: Callable[[int], object] = os._exit,
        clock: Clock | None = None,
        metrics: BusMetrics | None = None,
    ) -> None:
        """Nothing happens before `start`.

        `topics` are full names. `max_batch` records at most are handed out together, to `concurrency` calls of the
        handler at most. `member` is the `group_instance_id`, else that of the settings, else the member is dynamic.
        `on_dead_letter` ends the message of a record nobody can process; its offset passes afterwards. `exit` ends
        the process when dead letters exceed their limit.
        """
        self._settings = settings
        self._topics = list(topics)
        self._group = group
        self._member = member or settings.static_member
        self._producer = producer
        self._exit = exit
        self._clock = clock or SystemClock()
        self._metrics = metrics or BusMetrics.of_process()
        self._bound = max_in_flight_per_partition
        self._poll_most = max(1, min(_POLL_MOST, max_in_flight_per_partition // 4))
        self._runner = Runner(
            handle,
            publish_dead_letter=self._publish_dead_letter,
            on_dead_letter=on_dead_letter,
            too_many_dead_letters=lambda: self._end(EXIT_TOO_MANY_DEAD_LETTERS),
            observer=self._metrics.of_group(group),
            clock=self._clock,
            max_batch=max_batch,
            concurrency=concurrency,
            limits=settings.retry,
            known=known or KnownErrors(),
            dead_letter_limit=settings.dead_letter_limit,
            dead_letter_window_seconds=settings.dead_letter_window_seconds,
        )
        self._runner.on_finished = self._on_finished
        #: FastStream's broker behind it, for an application that wants to start and show it: `FastStream(broker, …)`.
        self.broker = build_broker(settings)
        self._subscriber = build_subscriber(
            self.broker,
            settings,
            topics=self._topics,
            group=group,
            member=self._member,
            listener=self,
            max_poll_records=self._poll_most,
        )
        self._kafka: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._poller: asyncio.Task[None] | None = None
        self._stopping = False
        self._stop_once = asyncio.Lock()
        self._polls = 0
        self._last_poll = 0.0
        self._ends: dict[tuple[str, int], int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._broker_away = False
        self._committed: dict[TopicPartition, int] = {}
        self._committing = asyncio.Lock()
        self._commit_soon = asyncio.Event()
        self._finished_at_commit = 0
        self._room = asyncio.Event()
        self.pulse = Pulse(name=group)

    async def start(self) -> None:
        """Join the group and begin. Raises BusError if the broker does not let us in before the deadline."""
        if self._kafka is not None or self._stopping:
            raise BusError("a consumer is started once")
        settings = self._settings
        # A member that joins waits for all others to hand over.
        seconds = settings.connect_timeout_seconds + settings.rebalance_timeout_ms / 1_000
        try:
            async with asyncio.timeout(seconds):
                # A FastStream application has started it already when `start` is its `after_startup` hook.
                if self._subscriber.consumer is None:
                    await self.broker.start()
        except (TimeoutError, KafkaError, OSError) as error:
            await self._disconnect()
            raise BusError(f"group {self._group}: cannot join: {type(error).__name__}") from error
        self._kafka = self._subscriber.consumer
        self._last_poll = self._clock.monotonic()
        self._poller = self._begin(self._poll())
        self._tasks = [self._begin(self._commit_regularly()), self._begin(self._probe_regularly())]
        self._tasks.append(self._begin(self._pulsate()))
        log.info("bus.consumer_started", group=self._group, topics=len(self._topics), member=self._member)

    async def stop(self) -> None:
        """Finish what handlers have, within `drain_seconds`, commit, and leave the group.

        To be called while all that handlers need is still there: FastStream's `on_shutdown`, or before it.
        """
        async with self._stop_once:
            if not self._stopping:
                self._stopping = True
                await self._stop()

    async def _stop(self) -> None:
        self._room.set()
        drained = await self._runner.drain(self._runner.scheduler.places(), self._settings.drain_seconds)
        await self._runner.stop()
        if self._kafka is not None:
            await self._commit()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._poller is not None:
            # Never cancelled while its consumer lives: aiokafka's idle clock would stop for ever.
            await asyncio.wait([self._poller], timeout=2 * self._settings.poll_wait_ms / 1_000)
        await self._disconnect()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        log.info("bus.consumer_stopped", group=self._group, drained=drained, unfinished=self._in_flight())

    @property
    def state(self) -> ConsumerState:
        """How the consumer is doing right now."""
        now = self._clock.monotonic()
        oldest = self._runner.scheduler.oldest_arrival()
        return ConsumerState(
            group=self._group,
            partitions=len(self._assignment()),
            in_flight=self._in_flight(),
            in_hand=self._runner.in_hand,
            lag=sum(max(1, self._ends[place] - offset) for place, offset in self._behind().items()),
            oldest_in_flight_seconds=0.0 if oldest is None else now - oldest,
            last_poll_seconds=now - self._last_poll,
            waiting=self._waiting(),
            finished=self._runner.finished,
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: "asyncio.Task[None]") -> None:
        """None of them ends before `stop`; one that does would leave a consumer that looks alive and reads nothing."""
        error = None if task.cancelled() else task.exception()
        if not self._stopping:
            log.critical("bus.consumer_ended", group=self._group, error=type(error).__name__)
            self._end(EXIT_CONSUMER_ENDED)

    def _is_stopping(self) -> bool:
        return self._stopping

    def _end(self, code: int) -> None:
        self._exit(code)

    # Reading

    async def _poll(self) -> None:
        kafka = self._kafka
        if kafka is None:
            raise NotStarted("the consumer is not running")
        wait_ms = self._settings.poll_wait_ms
        while not self._stopping:
            self._polls += 1
            self._last_poll = self._clock.monotonic()
            places = [place for place in kafka.assignment() if self._has_room(place)]
            if not places:
                # `getmany` with no partition named means all of them, full ones included.
                await self._wait_for_room(wait_ms / 1_000)
                continue
            try:
                lots = await kafka.getmany(*places, timeout_ms=wait_ms, max_records=self._poll_most)
            except ConsumerStoppedError:
                if self._is_stopping():
                    return
                raise
            except KafkaError as error:
                log.warning("bus.poll_failed", group=self._group, error=type(error).__name__)
                await self._clock.sleep(_RETRY_POLL_SECONDS)
                continue
            if self._is_stopping():
                return
            for place, records in lots.items():
                self._arrive(TopicPartition(*place), records)
            if lots:
                # A full buffer is handed over without a pause; the others get their turn here.
                await asyncio.sleep(0)

    def _has_room(self, place: KafkaPartition) -> bool:
        return self._runner.scheduler.unfinished(TopicPartition(*place)) + self._poll_most <= self._bound

    async def _wait_for_room(self, seconds: float) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._room.wait()

    def _arrive(self, place: TopicPartition, records: "Sequence[ConsumerRecord[bytes, bytes]]") -> None:
        # Records may come before `on_partitions_assigned`: the first of them begins the assignment's account.
        if place not in self._committed:
            self._committed[place] = records[0].offset
        self._runner.arrive(place, [_record(record) for record in records])

    # Committing

    def _on_finished(self) -> None:
        self._room.set()
        if self._runner.finished - self._finished_at_commit >= self._settings.commit_every_records:
            self._commit_soon.set()

    async def _commit_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.commit_interval_seconds):
                    await self._commit_soon.wait()
            self._commit_soon.clear()
            await self._commit()

    async def _commit(self) -> None:
        """Commit every watermark that moved. Never raises: what is not committed is handled again, not lost."""
        kafka = self._kafka
        if kafka is None:
            return
        async with self._committing:
            self._finished_at_commit = self._runner.finished
            offsets = {
                KafkaPartition(*place): offset
                for place, offset in self._runner.scheduler.watermarks().items()
                if offset != self._committed.get(place)
            }
            if not offsets:
                return
            try:
                async with asyncio.timeout(self._settings.commit_timeout_seconds):
                    await kafka.commit(offsets)
            except (CommitFailedError, IllegalStateError) as error:
                # That assignment is over. Its account is closed by the revoke that follows, not here: closed now, it
                # would begin anew with the next poll, in the middle.
                self._metrics.commits_failed.labels(self._group).inc()
                log.info("bus.commit_after_rebalance", group=self._group, error=type(error).__name__)
            except (TimeoutError, KafkaError, OSError) as error:
                self._metrics.commits_failed.labels(self._group).inc()
                self._missed_broker(error)
            else:
                self._heard_broker()
                self._committed.update({TopicPartition(*place): offset for place, offset in offsets.items()})

    # Assignments

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """aiokafka is about to give partitions back: finish what handlers have, commit, close the account."""
        places = [TopicPartition(*place) for place in revoked]
        if not places:
            return
        self._metrics.rebalances.labels(self._group).inc()
        drained = await self._runner.drain(places, self._settings.drain_seconds)
        await self._commit()
        self._runner.scheduler.revoke(places)
        for place in places:
            self._committed.pop(place, None)
        log.info("bus.revoked", group=self._group, partitions=len(places), drained=drained)

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """aiokafka has got partitions. Their accounts begin with their first records, which may be here already."""
        count = len(list(assigned))
        self._metrics.partitions.labels(self._group).set(count)
        self._room.set()
        log.info("bus.assigned", group=self._group, partitions=count)

    # Watching

    async def _probe_regularly(self) -> None:
        while True:
            await self._clock.sleep(self._settings.probe_interval_seconds)
            await self._probe()

    async def _probe(self) -> None:
        """Ask the broker where the partitions end. What the fetcher believes is no witness to its own silence."""
        kafka = self._kafka
        if kafka is None:
            return
        places = list(kafka.assignment())
        try:
            async with asyncio.timeout(self._settings.commit_timeout_seconds):
                ends = await kafka.end_offsets(places)
        except (TimeoutError, KafkaError, OSError) as error:
            self._missed_broker(error)
            return
        self._heard_broker()
        self._positions = {tuple(place): await self._position(kafka, place) for place in places}
        self._ends = {tuple(place): end for place, end in ends.items()}

    def _missed_broker(self, error: Exception) -> None:
        if not self._broker_away:
            log.warning("bus.broker_away", group=self._group, error=type(error).__name__)
        self._broker_away = True

    def _heard_broker(self) -> None:
        if self._broker_away:
            log.info("bus.broker_back", group=self._group)
        self._broker_away = False

    @staticmethod
    async def _position(kafka: AIOKafkaConsumer, place: KafkaPartition) -> int:
        """Where the fetcher stands, or -1 if it does not know: with records waiting, that must not last."""
        try:
            async with asyncio.timeout(_POSITION_SECONDS):
                position: int = await kafka.position(place)
        except (TimeoutError, KafkaError):
            return _UNKNOWN_POSITION
        return position

    def _behind(self) -> dict[tuple[str, int], int]:
        """Partitions of ours with unfinished records, as of the last probe, and how far we are in each."""
        watermarks = self._runner.scheduler.watermarks()
        behind: dict[tuple[str, int], int] = {}
        for kafka_place in self._assignment():
            place = TopicPartition(*kafka_place)
            position = watermarks.get(place, self._positions.get(place))
            if position is not None and position < self._ends.get(place, 0):
                behind[place] = position
        return behind

    async def _pulsate(self) -> None:
        while True:
            oldest = self._runner.oldest_in_hand()
            waiting = self._waiting()
            self.pulse = Pulse(
                name=self._group,
                polls=self._polls,
                oldest=None if oldest is None else (*_place(oldest[0]), oldest[1]),
                behind=self._behind(),
                broker_away=self._broker_away,
                waits_for_a_cause=any(cause.is_excuse and cause in waiting for cause in WaitCause),
            )
            self._show(waiting)
            await self._clock.sleep(_PULSE_SECONDS)

    def _show(self, waiting: Mapping[str, int]) -> None:
        state, metrics, group = self.state, self._metrics, self._group
        metrics.lag.labels(group).set(state.lag)
        metrics.in_flight.labels(group).set(state.in_flight)
        metrics.oldest.labels(group).set(state.oldest_in_flight_seconds)
        metrics.poll_age.labels(group).set(state.last_poll_seconds)
        for cause in WaitCause:
            metrics.waiting.labels(group, cause).set(waiting.get(cause, 0))

    def _waiting(self) -> dict[str, int]:
        waiting = {str(cause or "burial"): count for cause, count in self._runner.scheduler.waiting().items()}
        if self._broker_away:
            waiting.setdefault(WaitCause.BROKER, 0)
        return waiting

    def _in_flight(self) -> int:
        scheduler = self._runner.scheduler
        return sum(scheduler.unfinished(place) for place in scheduler.places())

    def _assignment(self) -> list[KafkaPartition]:
        return [] if self._kafka is None or self._stopping else list(self._kafka.assignment())

    # Dead letters and the end

    async def _publish_dead_letter(self, record: Record, cause: DeadLetterCause) -> None:
        topic = self._settings.dead_letter_topic
        await self._producer.publish_enclosed(encode_dead_letter(topic, record, self._group, cause))

    async def _disconnect(self) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                await self.broker.stop()
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("bus.disconnect_failed", group=self._group, error=type(error).__name__)


def _record(record: "ConsumerRecord[bytes, bytes]") -> Record:
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value or b"",
        dict(record.headers),
        record.timestamp,
    )


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset
