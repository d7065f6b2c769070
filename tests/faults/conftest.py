"""Fixtures of the fault tests: an installation on the run's servers, and one on servers that may be killed."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.faults.apart import Apart, apart
from tests.faults.system import System, system
from tests.flow.telemetry.test_traces import collector  # noqa: F401

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres
from switchboard.testing.fixtures import database_of

#: Starts an installation with further options of `switchboard up`.
Start = Callable[..., AbstractAsyncContextManager[System]]


@pytest.fixture(scope="session")
def start(run_folder: Path, postgres_dsn: str, kafka: str) -> Start:
    """Start an installation of a test's own, with a database and topics of its own on the run's servers."""

    @asynccontextmanager
    async def started(*options: str, inject: Path | None = None) -> AsyncIterator[System]:
        name = f"faults_{uuid4().hex[:12]}"
        server = await asyncpg.connect(postgres_dsn)
        await server.execute(f"CREATE DATABASE {name}")
        environment = {
            "SWITCHBOARD_POSTGRES_DSN": database_of(postgres_dsn, name),
            "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka,
            "SWITCHBOARD_TOPIC_PREFIX": f"{name}.",
            "SWITCHBOARD_TOPIC_PARTITIONS": "6",
        }
        try:
            async with system(run_folder / name, *options, environment=environment, inject=inject) as running:
                yield running
        finally:
            await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await server.close()

    return started


#: Starts an installation on servers of its own, with further options of `switchboard up`.
StartApart = Callable[..., AbstractAsyncContextManager[Apart]]


@pytest.fixture
def start_apart(
    own_folder: Path, own_kafka: Callable[..., EmbeddedKafka], own_postgres: Callable[..., EmbeddedPostgres]
) -> StartApart:
    """Start an installation whose broker, database and links the test may hurt."""

    def started(*options: str, inject: Path | None = None) -> AbstractAsyncContextManager[Apart]:
        return apart(own_folder / "installation", own_kafka, own_postgres, *options, inject=inject)

    return started
