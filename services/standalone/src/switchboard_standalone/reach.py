"""How commands find an installation: `SWITCHBOARD_…` settings where they name servers, else the data folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

import switchboard_channels
from switchboard.bus import BusSettings, Outgoing, Producer
from switchboard.channel.registry import manifests
from switchboard.configuration import ConfigurationStore
from switchboard.embedded import default_data_folder
from switchboard.records import AttemptsRecord
from switchboard.secrets import KeyRing
from switchboard.settings import PREFIX
from switchboard.store.pool import Pool, open_pool
from switchboard.topics import ATTEMPTS
from switchboard_standalone.home import Home, Running
from switchboard_standalone.trouble import Refused


def home_of(data: Path | None) -> Home:
    """The folder of the installation."""
    return Home(data or default_data_folder())


def running_in(home: Home) -> Running:
    """What `switchboard up` runs on this folder. Raises Refused if nothing does."""
    running = home.running()
    if running is None:
        raise Refused(
            f"nothing runs on {home.folder}; start `switchboard up` there, or name another folder with --data"
        )
    return running


class Reach(Struct, frozen=True):
    """Where an installation's servers are, and its keys."""

    postgres_dsn: str
    kafka_bootstrap: str
    topic_prefix: str
    secret_keys: str

    @classmethod
    def of(cls, home: Home) -> Reach:
        """Settings first, then what runs on the folder. Raises Refused when neither says where the servers are."""

        def configured(name: str) -> str:
            return os.environ.get(f"{PREFIX}{name}", "")

        running = None if configured("POSTGRES_DSN") else running_in(home)
        return cls(
            postgres_dsn=configured("POSTGRES_DSN") or (running.postgres if running else ""),
            kafka_bootstrap=configured("KAFKA_BOOTSTRAP") or (running.kafka if running else ""),
            topic_prefix=configured("TOPIC_PREFIX") or (running.topic_prefix if running else "switchboard."),
            secret_keys=configured("SECRET_KEYS") or home.kept_secret_keys() or "",
        )

    @property
    def bus(self) -> BusSettings:
        """How to reach the broker. Raises Refused when it is not known."""
        if not self.kafka_bootstrap:
            raise Refused("SWITCHBOARD_KAFKA_BOOTSTRAP: is not set")
        return BusSettings(
            bootstrap=self.kafka_bootstrap, topic_prefix=self.topic_prefix, client_id="switchboard-command"
        )

    @property
    def keys(self) -> KeyRing:
        """The keys for secrets at rest. Raises Refused when they are not known or no keys."""
        if not self.secret_keys:
            raise Refused("SWITCHBOARD_SECRET_KEYS: is not set")
        try:
            return KeyRing.parse(self.secret_keys)
        except ValueError as error:
            raise Refused(f"SWITCHBOARD_SECRET_KEYS: {error}") from None

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[Pool]:
        """A few connections to the database."""
        pool = await open_pool(self.postgres_dsn, size=2, service="switchboard-command")
        try:
            yield pool
        finally:
            await pool.close()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[ConfigurationStore]:
        """The configuration, for changes. Services hear of them at once."""
        keys = self.keys
        async with self.pool() as pool:
            yield ConfigurationStore(pool, keys, manifests(switchboard_channels))

    async def publish(self, records: Sequence[AttemptsRecord]) -> None:
        """Tell the router facts about attempts; returns when the broker has them. Raises BusError."""
        topic = ATTEMPTS.name(self.topic_prefix)
        producer = Producer(self.bus)
        await producer.start()
        try:
            await producer.publish(
                [Outgoing(topic, r.message_id.encode(), ATTEMPTS.encode(r), ATTEMPTS.headers(r)) for r in records]
            )
        finally:
            await producer.stop()
