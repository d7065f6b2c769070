"""Brings the database and the broker to what this version needs: what `switchboard migrate` does."""

from __future__ import annotations

import asyncio

from msgspec import Struct

import switchboard_channels
from switchboard.bus import BusSettings
from switchboard.bus.topics import TopicSpec, dead_letter_topic, ensure_topics
from switchboard.channel.registry import manifests
from switchboard.store.migrate import migrate
from switchboard.topics import topic_names
from switchboard_standalone.schema_settings import SchemaSettings


class Changes(Struct, frozen=True):
    """What was brought up to date."""

    migrations: list[str]
    topics: list[str]


async def bring_up_to_date(settings: SchemaSettings) -> Changes:
    """Apply missing migrations and create missing topics, side by side. Safe to run by several at once.

    Raises MigrationError, BusError, or what the database raises when it cannot be reached.
    """
    specs = topic_specs(settings)
    async with asyncio.TaskGroup() as group:
        topics = group.create_task(ensure_topics(settings.kafka_bootstrap, specs))
        applied = group.create_task(migrate(settings.postgres_dsn.get_secret_value()))
    await topics
    return Changes(applied.result(), [spec.name for spec in specs])


def topic_specs(settings: SchemaSettings) -> list[TopicSpec]:
    """Every topic of the installation, dead letters included."""
    bus = BusSettings(bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix)
    specs = [
        TopicSpec(
            name=name,
            partitions=settings.topic_partitions,
            retention_ms=settings.topic_retention_hours * 3_600_000,
            replication_factor=settings.topic_replicas,
            min_insync_replicas=settings.topic_in_sync_replicas,
        )
        for name in topic_names(settings.topic_prefix, manifests(switchboard_channels))
    ]
    return [*specs, dead_letter_topic(bus, replication_factor=settings.topic_replicas)]
