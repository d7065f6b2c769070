"""Brings the database and the broker to what this version needs: what `switchboard migrate` does."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from msgspec import Struct
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

import switchboard_channels
from switchboard.bus import BusSettings
from switchboard.bus.topics import TopicSpec, dead_letter_topic, ensure_topics
from switchboard.channel.registry import manifests
from switchboard.settings import PREFIX
from switchboard.store.migrate import migrate
from switchboard.topics import topic_names

#: Enough for one machine; a cluster has 24 (DESIGN 4).
EMBEDDED_PARTITIONS: Final = 6


class SchemaSettings(BaseSettings):
    """What `switchboard migrate` needs to know."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    postgres_dsn: SecretStr = Field(description="PostgreSQL, as a `postgresql://` address with user and database.")
    kafka_bootstrap: str = Field(description="Kafka brokers, `host:port`, comma-separated.")
    topic_prefix: str = Field(default="switchboard.", description="What topic and group names begin with.")
    topic_partitions: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=24, description="Partitions of a topic when it is made; never raised afterwards."
    )
    topic_retention_hours: Annotated[int, Field(ge=1, le=720)] = Field(
        default=72, description="How long records stay in a topic when it is made, in hours."
    )
    topic_replicas: Annotated[int, Field(ge=-1, le=9)] = Field(
        default=-1, description="Replicas of a partition when a topic is made; -1: what the broker is set to."
    )
    topic_in_sync_replicas: Annotated[int, Field(ge=1, le=9)] | None = Field(
        default=None, description="Replicas that must have a record before it counts; unset: what the broker is set to."
    )


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
