"""Fixtures of a pytest run: one PostgreSQL and one Kafka for all, everything else fresh for each test.

Servers that are configured (`SWITCHBOARD_POSTGRES_DSN`, `SWITCHBOARD_KAFKA_BOOTSTRAP`) are used as they are.
Embedded ones keep their data in a folder of this run; only programs are kept for the next.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres, ServerSettings, ensure_servers
from switchboard.store.migrate import migrate

_PREFIX = "switchboard-test-"
_MEMORY = Path("/dev/shm")
#: What a run may need; containers often have 64 MB only.
_MEMORY_BYTES = 3 * 1024**3
#: A run's log of changes is never read again.
_SMALL = {"max_wal_size": "256MB"}


@pytest.fixture(scope="session")
def run_folder() -> Iterator[Path]:
    """A folder of this run that every user may enter: pytest's own are closed to PostgreSQL under root."""
    _sweep()
    yield from _fresh_folder()


@pytest.fixture(scope="session")
def software() -> Path:
    """Where the programs of embedded servers are kept from run to run."""
    return ServerSettings().programs


@pytest.fixture(scope="session")
def postgres_dsn(run_folder: Path, software: Path) -> Iterator[str]:
    """The run's PostgreSQL. Tests want `database`, which is a fresh one in it."""
    settings = ServerSettings()
    if settings.postgres_dsn is not None or settings.testcontainers:
        with ensure_servers(settings.model_copy(update={"kafka_bootstrap": "unused"})) as servers:
            yield servers.postgres_dsn
        return
    with EmbeddedPostgres(run_folder / "postgres", software=software, durable=False, settings=_SMALL) as server:
        yield server.dsn


@pytest.fixture(scope="session")
def kafka(run_folder: Path, software: Path) -> Iterator[str]:
    """The run's Kafka, as a bootstrap string. Give topics and groups the test's `topic_prefix`."""
    settings = ServerSettings()
    if settings.kafka_bootstrap is not None or settings.testcontainers:
        with ensure_servers(settings.model_copy(update={"postgres_dsn": SecretStr("unused")})) as servers:
            yield servers.kafka_bootstrap
        return
    with EmbeddedKafka(run_folder / "kafka", software=software) as server:
        yield server.bootstrap


@pytest.fixture
def topic_prefix() -> str:
    """What this test's topics and groups begin with, as services take it in SWITCHBOARD_TOPIC_PREFIX."""
    return f"t{uuid4().hex[:12]}."


@pytest.fixture(scope="session")
async def _template(postgres_dsn: str) -> AsyncIterator[tuple[asyncpg.Connection[Any], str]]:
    """A database with every migration applied, which each test's database copies."""
    server = await asyncpg.connect(postgres_dsn)
    name = f"template_{uuid4().hex[:12]}"
    await server.execute(f"CREATE DATABASE {name}")
    try:
        await migrate(database_of(postgres_dsn, name))
        yield server, name
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


@pytest.fixture
async def empty_database(postgres_dsn: str) -> AsyncIterator[str]:
    """A fresh database without any table, as a DSN."""
    server = await asyncpg.connect(postgres_dsn)
    name = f"empty_{uuid4().hex[:12]}"
    await server.execute(f"CREATE DATABASE {name}")
    try:
        yield database_of(postgres_dsn, name)
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


@pytest.fixture
async def database(postgres_dsn: str, _template: tuple[asyncpg.Connection[Any], str]) -> AsyncIterator[str]:
    """A fresh, migrated database, as a DSN. Dropped afterwards, open connections or not."""
    server, template = _template
    name = f"test_{uuid4().hex[:12]}"
    # Its files are copied: quicker than logging each page.
    await server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield database_of(postgres_dsn, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of this test that every user may enter, for servers of its own."""
    yield from _fresh_folder()


@pytest.fixture
def own_postgres(own_folder: Path, software: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Start a PostgreSQL that the test may kill: `own_postgres(durable=True, settings={…})`.

    It is empty; `migrate(server.dsn)` fills it. `kill` and `start` on the same object keep port and data.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> EmbeddedPostgres:
            folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=own_folder))
            server = EmbeddedPostgres(folder, software=software, **{"durable": False, "settings": _SMALL, **options})
            return stack.enter_context(server)

        yield start


@pytest.fixture
def own_kafka(own_folder: Path, software: Path) -> Iterator[Callable[..., EmbeddedKafka]]:
    """Start a Kafka that the test may kill: `own_kafka(settings={…})`, options as of EmbeddedKafka.

    `kill` and `start` on the same object keep port and data; a start after a kill takes about 3 s.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> EmbeddedKafka:
            folder = Path(tempfile.mkdtemp(prefix="kafka-", dir=own_folder))
            return stack.enter_context(EmbeddedKafka(folder, software=software, **options))

        yield start


def database_of(dsn: str, name: str) -> str:
    """The DSN of another database on the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def _fresh_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_place()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _place() -> Path:
    """Memory, if there is enough of it and TMPDIR does not say otherwise, else the folder for such things.

    A database is some 600 files: to make them takes 10 ms in memory, and half a second on some disks.
    """
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    if fits and "TMPDIR" not in os.environ:
        return _MEMORY
    return Path(tempfile.gettempdir())


def _sweep() -> None:
    """Remove folders of runs that were killed before they could."""
    for folder in (found for place in {_place(), _MEMORY} for found in place.glob(f"{_PREFIX}*")):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
