"""Settings of `switchboard migrate`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from switchboard.settings import PREFIX

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
