"""What FastStream builds for us: the broker and one consumer, with every default that matters said aloud.

The subscriber has no handler. FastStream's own loop commits past parser errors, ends on a stray cancellation while
`ping()` stays green, and delays sparse batches; `consumer` polls `subscriber.consumer` itself instead.
"""

from collections.abc import Sequence
from typing import Any, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faststream.kafka import KafkaBroker
from faststream.middlewares import AckPolicy

from switchboard.bus.settings import BusSettings

#: aiokafka's own watch over polls: it stops for ever after one cancelled `getmany`, so ours stands in for it.
MAX_POLL_INTERVAL_MS: Final = 24 * 3_600_000
#: What a batch of one message adds to its size, at most.
_BATCH_FRAMING_BYTES: Final = 1_000


def build_broker(settings: BusSettings) -> KafkaBroker:
    """A broker that only consumes: what is published goes through `Producer`."""
    return KafkaBroker(
        settings.bootstrap.split(","),
        client_id=settings.client_id,
        consumer_only=True,
        allow_auto_create_topics=False,
        acks="all",
        enable_idempotence=True,
        # Joining a group is one request that lasts as long as the slowest member takes to hand over.
        request_timeout_ms=settings.rebalance_timeout_ms + 10_000,
        retry_backoff_ms=100,
        metadata_max_age_ms=60_000,
        # Its telemetry middleware would put record keys into spans.
        middlewares=(),
        graceful_timeout=settings.drain_seconds,
        apply_types=False,
        logger=None,
    )


def build_subscriber(
    broker: KafkaBroker,
    settings: BusSettings,
    *,
    topics: Sequence[str],
    group: str,
    member: str | None,
    listener: ConsumerRebalanceListener,
    max_poll_records: int,
) -> Any:
    """A subscriber without a handler: started and stopped with its broker, polled by us."""
    return broker.subscriber(
        *topics,
        group_id=group,
        group_instance_id=member,
        listener=listener,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        # Its sticky assignor keeps what it remembers on the class: two consumers of one process would mix it up.
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        fetch_min_bytes=1,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        max_poll_records=max_poll_records,
        # The largest batch there is: what is fetched ahead lies in memory for each partition. A larger one, of other
        # settings, is fetched alone.
        max_partition_fetch_bytes=max(settings.max_batch_bytes, settings.max_message_bytes + _BATCH_FRAMING_BYTES),
        isolation_level="read_uncommitted",
        include_in_schema=False,
    )
