"""Creates topics, once, however often asked and by however many at the same time."""

from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from msgspec import Struct

from switchboard.bus.errors import BusError
from switchboard.bus.settings import BusSettings

log = structlog.get_logger(__name__)

DEFAULT_RETENTION_MS: Final = 3 * 24 * 3_600_000


class TopicSpec(Struct, frozen=True):
    """A topic as it is created. An existing topic is left as it is."""

    name: str
    #: Never raised in place: a key's partition would change under records still waiting.
    partitions: int
    retention_ms: int = DEFAULT_RETENTION_MS
    #: The largest batch the broker takes, in bytes.
    max_message_bytes: int = 1_048_588
    #: -1 takes the broker's `default.replication.factor`.
    replication_factor: int = -1
    #: None takes the broker's. With three replicas 2 survives a machine.
    min_insync_replicas: int | None = None


def dead_letter_topic(settings: BusSettings, *, partitions: int = 1, replication_factor: int = -1) -> TopicSpec:
    """The dead-letter topic: a letter holds a whole record in base64, so it may be twice as large as any record."""
    return TopicSpec(
        name=settings.dead_letter_topic,
        partitions=partitions,
        max_message_bytes=2 * settings.max_message_bytes + settings.max_batch_bytes,
        replication_factor=replication_factor,
    )


async def ensure_topics(bootstrap: str, specs: Sequence[TopicSpec], *, timeout_seconds: float = 30.0) -> None:
    """Create the topics that do not exist. Raises BusError naming those the broker refuses, with its reason.

    An existing topic with another number of partitions is left alone and told in the log.
    """
    if not specs:
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=int(timeout_seconds * 1_000))
    try:
        await admin.start()
        await _create(admin, specs)
        await _compare(admin, specs)
    except (KafkaError, OSError) as error:
        raise BusError(f"cannot create topics: {type(error).__name__}") from error
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    response = await admin.create_topics([_new_topic(spec) for spec in specs])
    refused: list[str] = []
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            refused.append(f"{name} ({error.__name__})")
    if refused:
        raise BusError(f"the broker refuses to create topics: {', '.join(refused)}")


async def _compare(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    described = await admin.describe_topics([spec.name for spec in specs])
    found = {topic["topic"]: len(topic["partitions"]) for topic in described}
    for spec in specs:
        if found.get(spec.name, spec.partitions) != spec.partitions:
            log.warning("bus.topic_differs", topic=spec.name, partitions=found[spec.name], configured=spec.partitions)


def _new_topic(spec: TopicSpec) -> NewTopic:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(spec.retention_ms),
        "max.message.bytes": str(spec.max_message_bytes),
    }
    if spec.min_insync_replicas is not None:
        config["min.insync.replicas"] = str(spec.min_insync_replicas)
    # An empty assignment is how aiokafka is told that -1 is meant.
    assignments: dict[int, list[int]] | None = {} if spec.replication_factor == -1 else None
    return NewTopic(spec.name, spec.partitions, spec.replication_factor, assignments, config)
