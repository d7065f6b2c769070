"""One installation for all flow tests of the whole system, on the run's servers."""

import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.flow.installed import Installed, installed

from switchboard.testing.fixtures import database_of


@pytest.fixture(scope="session")
async def installation(run_folder: Path, postgres_dsn: str, kafka: str) -> AsyncIterator[Installed]:
    """Every service as a process, the simulator included, with a database and topics of its own.

    It is shared: use numbers of your own (`new_number`), and set back what you change of the app.
    `SWITCHBOARD_FLOW_OPTIONS` holds further options of `switchboard up`.
    """
    name = f"installation_{uuid4().hex[:12]}"
    server = await asyncpg.connect(postgres_dsn)
    await server.execute(f"CREATE DATABASE {name}")
    environment = {
        "SWITCHBOARD_POSTGRES_DSN": database_of(postgres_dsn, name),
        "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka,
        "SWITCHBOARD_TOPIC_PREFIX": f"{name}.",
        "SWITCHBOARD_TOPIC_PARTITIONS": "6",
    }
    try:
        options = shlex.split(os.environ.get("SWITCHBOARD_FLOW_OPTIONS", ""))
        async with installed(run_folder / name, *options, environment=environment) as running:
            yield running
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()
