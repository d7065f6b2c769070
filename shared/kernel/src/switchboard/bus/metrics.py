"""What the bus counts. Labels are groups, topics and closed sets, never keys, ids or anything of a record."""

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from switchboard.bus.record import Outgoing


class BusMetrics:
    """The bus's metrics in one registry. One per process: consumers and producers share it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        of_topic = ("group", "topic")
        self.records_finished = Counter(
            "switchboard_bus_records_finished", "Records finished.", of_topic, registry=registry
        )
        self.records_retried = Counter(
            "switchboard_bus_records_retried",
            "Records set aside to be handled again, by what they wait for.",
            (*of_topic, "cause"),
            registry=registry,
        )
        self.dead_letters = Counter(
            "switchboard_bus_dead_letters", "Records buried.", (*of_topic, "reason"), registry=registry
        )
        self.lag = Gauge(
            "switchboard_bus_lag_records",
            "Records in the assigned partitions not finished.",
            ("group",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "switchboard_bus_in_flight_records", "Records read and not finished.", ("group",), registry=registry
        )
        self.oldest = Gauge(
            "switchboard_bus_oldest_seconds", "Since when the oldest is in flight.", ("group",), registry=registry
        )
        self.poll_age = Gauge(
            "switchboard_bus_poll_age_seconds", "Since when there was no poll.", ("group",), registry=registry
        )
        self.waiting = Gauge(
            "switchboard_bus_waiting_records",
            "Records set aside, by what they wait for.",
            ("group", "cause"),
            registry=registry,
        )
        self.partitions = Gauge("switchboard_bus_partitions", "Partitions assigned.", ("group",), registry=registry)
        self.rebalances = Counter("switchboard_bus_rebalances", "Assignments ended.", ("group",), registry=registry)
        self.commits_failed = Counter(
            "switchboard_bus_commits_failed", "Commits that did not go through.", ("group",), registry=registry
        )
        self.messages_published = Counter(
            "switchboard_bus_published", "Messages acknowledged.", ("topic",), registry=registry
        )
        self.messages_unacknowledged = Counter(
            "switchboard_bus_publish_failed", "Messages not acknowledged in time.", ("topic",), registry=registry
        )
        self.producers_replaced = Counter(
            "switchboard_bus_producers_replaced", "Producers found broken.", registry=registry
        )
        self.loop_lag = Histogram(
            "switchboard_event_loop_lag_seconds",
            "How late the event loop runs what is due.",
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        )
        self.loop_blocked = Counter(
            "switchboard_event_loop_blocked", "Times the event loop was blocked over 100 ms.", registry=registry
        )

    @staticmethod
    @cache
    def of_process() -> "BusMetrics":
        """The metrics in the registry that `/metrics` shows."""
        return BusMetrics(REGISTRY)

    def published(self, messages: Sequence[Outgoing]) -> None:
        """Messages were acknowledged."""
        for topic, count in Tally(message.topic for message in messages).items():
            self.messages_published.labels(topic).inc(count)

    def publish_failed(self, topics: Iterable[str]) -> None:
        """Messages of these topics were not acknowledged."""
        for topic in topics:
            self.messages_unacknowledged.labels(topic).inc()

    def of_group(self, group: str) -> "GroupMetrics":
        """The same for one consumer group."""
        return GroupMetrics(self, group)


class GroupMetrics:
    """What one consumer counts while it works."""

    def __init__(self, metrics: BusMetrics, group: str) -> None:
        self._metrics = metrics
        self._group = group

    def finished(self, topic: str, count: int) -> None:
        """Records were finished."""
        self._metrics.records_finished.labels(self._group, topic).inc(count)

    def retried(self, topic: str, count: int, cause: str) -> None:
        """Records were set aside."""
        self._metrics.records_retried.labels(self._group, topic, cause).inc(count)

    def dead_lettered(self, topic: str, reason: str) -> None:
        """A record was buried."""
        self._metrics.dead_letters.labels(self._group, topic, reason).inc()
