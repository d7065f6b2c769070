"""Embedded servers: started, stopped, killed and started again, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from switchboard.embedded import (
    EmbeddedKafka,
    EmbeddedPostgres,
    FolderInUse,
    FolderUnusable,
    PortTaken,
    ServerFailed,
    ServerSettings,
    ensure_servers,
)
from switchboard.embedded.folder import require_traversable
from switchboard.embedded.kafka import cluster_id
from switchboard.testing import wait_until
from switchboard.testing.process import is_gone

HOLDING = Path(__file__).with_name("holding.py")

StartPostgres = Callable[..., EmbeddedPostgres]
StartKafka = Callable[..., EmbeddedKafka]


@pytest.fixture(scope="module")
def standing_postgres(run_folder: Path, software: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for the tests that leave it as it is."""
    with EmbeddedPostgres(run_folder / "standing", software=software, durable=False) as server:
        yield server


async def ask(dsn: str, question: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def tell(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def write(bootstrap: str, topic: str, *values: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value)
    await producer.stop()


async def read(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_postgres_keeps_its_data_over_stop_kill_and_start(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    await tell(server.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
    dsn = server.dsn

    server.stop()
    assert not server.running
    server.start()
    await tell(dsn, "INSERT INTO kept VALUES (2)")
    server.kill()
    server.start()

    assert server.dsn == dsn
    assert await ask(dsn, "SELECT array_agg(n ORDER BY n) FROM kept") == [1, 2]


async def test_postgres_stops_although_clients_are_connected(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    connection = await asyncpg.connect(server.dsn)

    server.stop()

    assert not server.running
    connection.terminate()


async def test_kafka_keeps_its_records_over_stop_kill_and_start(own_folder: Path, software: Path) -> None:
    folder = own_folder / "dätä, all of it"  # what people call folders
    with EmbeddedKafka(folder, software=software) as first:
        await write(first.bootstrap, "kept", b"one")
    with EmbeddedKafka(folder, software=software) as second:
        bootstrap = second.bootstrap
        assert bootstrap != first.bootstrap
        # Clients are sent to the address the broker advertises: it has to be the new one.
        assert await read(bootstrap, "kept", 1) == [b"one"]
        second.kill()
        assert not second.running
        second.start()

        assert second.bootstrap == bootstrap
        assert await read(bootstrap, "kept", 1) == [b"one"]


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    identifiers = [cluster_id(bytes([first]) + bytes(15)) for first in range(256)]

    assert all(identifier[0].isalpha() for identifier in identifiers)
    assert {len(identifier) for identifier in identifiers} == {22}


async def test_a_test_may_have_a_kafka_of_its_own(own_kafka: StartKafka) -> None:
    server = own_kafka(settings={"message.max.bytes": "2000000"})
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    await admin.close()

    settings = {name: value for name, value, *_ in answer.resources[0][4]}
    assert settings["message.max.bytes"] == "2000000"


async def test_kafka_makes_no_topic_that_nobody_declared(kafka: str, topic_prefix: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=400, retry_backoff_ms=20)
    await producer.start()
    with pytest.raises((UnknownTopicOrPartitionError, KafkaError)):
        await producer.send_and_wait(f"{topic_prefix}undeclared", b"x")
    await producer.stop()


async def test_servers_start_without_blocking_the_event_loop(own_folder: Path, software: Path) -> None:
    server = EmbeddedPostgres(own_folder / "dätä, all of it", software=software, durable=False)
    await server.start_async()
    try:
        assert await ask(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop_async()
    assert not server.running


async def test_a_second_start_on_one_folder_is_refused(standing_postgres: EmbeddedPostgres, software: Path) -> None:
    second = EmbeddedPostgres(standing_postgres.folder, software=software)
    with pytest.raises(FolderInUse, match=f"is in use by process {os.getpid()} .*stop it, or choose another"):
        second.start()

    assert await ask(standing_postgres.dsn, "SELECT 1") == 1


async def test_a_taken_port_is_one_clear_line(standing_postgres: EmbeddedPostgres, software: Path) -> None:
    folder = standing_postgres.folder.with_name("other")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = EmbeddedPostgres(folder, software=software, port=port)
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}: the port is taken; stop what listens"):
            server.start()

    server.start()  # nothing of the refused start stands in the way
    server.stop()


async def test_a_server_that_ends_while_starting_says_why(own_folder: Path, software: Path) -> None:
    server = EmbeddedPostgres(own_folder / "postgres", software=software, settings={"max_connections": "none"})
    with pytest.raises(ServerFailed, match=r"PostgreSQL ended while starting; it said: .*max_connections"):
        server.start()

    assert not server.running


async def test_a_server_that_does_not_become_ready_is_ended(own_folder: Path, software: Path) -> None:
    server = EmbeddedPostgres(own_folder / "postgres", software=software, durable=False, ready_seconds=-1)
    with pytest.raises(ServerFailed, match="was not ready within"):
        server.start()

    assert not server.running


async def test_the_data_folder_has_to_be_a_folder(tmp_path: Path, software: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="not a directory; choose a data folder that you can write"):
        EmbeddedPostgres(tmp_path / "file" / "postgres", software=software).start()


async def test_postgres_asks_for_its_password(standing_postgres: EmbeddedPostgres) -> None:
    password = standing_postgres.folder / "password"
    assert password.stat().st_mode & 0o777 == 0o600

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(standing_postgres.dsn.replace(password.read_text(), "guess"))


async def test_postgres_listens_on_loopback_alone(standing_postgres: EmbeddedPostgres) -> None:
    assert await ask(standing_postgres.dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(standing_postgres.dsn, "SHOW unix_socket_directories") == ""


async def test_postgres_writes_no_statement_and_no_value_to_its_log(
    standing_postgres: EmbeddedPostgres,
) -> None:
    await tell(standing_postgres.dsn, "CREATE TABLE people (number text PRIMARY KEY)")
    for _ in range(2):
        connection = await asyncpg.connect(standing_postgres.dsn)
        try:
            await connection.execute("INSERT INTO people VALUES ($1)", "46700000001")
            await connection.execute("INSERT INTO people VALUES ('46700000001')")
        except asyncpg.UniqueViolationError:
            pass
        finally:
            await connection.close()

    log = standing_postgres.log.read_text()
    assert "duplicate key" in log
    assert "46700000001" not in log


async def test_durable_is_the_default(own_folder: Path, software: Path) -> None:
    with EmbeddedPostgres(own_folder / "postgres", software=software) as server:
        settings = [await ask(server.dsn, f"SHOW {name}") for name in ("fsync", "synchronous_commit")]

    assert settings == ["on", "on"]


async def test_strings_sort_by_code_point_on_every_machine(standing_postgres: EmbeddedPostgres) -> None:
    order = await ask(standing_postgres.dsn, "SELECT array_agg(s ORDER BY s) FROM unnest(ARRAY['b', 'A', 'a', 'B']) s")

    assert order == ["A", "B", "a", "b"]


class Holder:
    """Another process that holds servers in a folder."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.held: dict[str, Any] = json.loads(process.stdout.readline() or "{}")

    @property
    def pids(self) -> list[int]:
        return [self.held[name] for name in ("postgres", "kafka") if name in self.held]


StartHolder = Callable[..., Holder]


@pytest.fixture
def holder(own_folder: Path, software: Path) -> Iterator[StartHolder]:
    """Start a process that holds servers, under a prefix such as another user."""
    with ExitStack() as stack:

        def start(*names: str, prefix: tuple[str, ...] = (), folder: Path = own_folder) -> Holder:
            process = subprocess.Popen(
                [*prefix, sys.executable, str(HOLDING), str(folder), str(software), *names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Holder(process)

        yield start


@pytest.mark.parametrize(
    ("number", "servers"),
    [
        (signal.SIGKILL, ("postgres", "kafka")),
        (signal.SIGTERM, ("postgres",)),
        (signal.SIGHUP, ("postgres",)),
        (signal.SIGINT, ("postgres",)),
    ],
)
async def test_nothing_keeps_running_when_the_parent_ends(
    holder: StartHolder,
    own_folder: Path,
    software: Path,
    number: signal.Signals,
    servers: tuple[str, ...],
) -> None:
    parent = holder(*servers)
    backend = await asyncpg.connect(parent.held["dsn"])
    await tell(parent.held["dsn"], "CREATE TABLE kept (n int)")

    parent.process.send_signal(number)
    parent.process.wait(60)

    for pid in parent.pids:
        await wait_until(partial(is_gone, pid), 30, f"process {pid} is gone")
    backend.terminate()
    # A new start waits for what is still ending there and finds the data.
    with EmbeddedPostgres(own_folder / "postgres", software=software, durable=False) as server:
        assert await ask(server.dsn, "SELECT count(*) FROM kept") == 0


#: Runs a command as an ordinary user. Reading everything stays allowed: this Python may live in root's home.
ORDINARY_USER = (
    (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    if os.geteuid() == 0
    else ()
)


async def test_an_ordinary_user_runs_both_servers(holder: StartHolder, own_folder: Path) -> None:
    folder = own_folder / "ordinary"
    folder.mkdir()
    folder.chmod(0o777)

    parent = holder("postgres", "kafka", prefix=ORDINARY_USER, folder=folder)
    assert parent.held, parent.process.communicate()[1]
    assert parent.held["uid"] != 0
    assert await ask(parent.held["dsn"], "SELECT 1") == 1
    await write(parent.held["bootstrap"], "mine", b"one")
    parent.process.communicate()

    assert parent.process.returncode == 0
    assert all(is_gone(pid) for pid in parent.pids)


async def test_a_folder_one_may_not_write_is_one_clear_line(holder: StartHolder, own_folder: Path) -> None:
    folder = own_folder / "closed"
    folder.mkdir()
    folder.chmod(0o555)

    parent = holder("postgres", prefix=ORDINARY_USER, folder=folder)
    _, complaint = parent.process.communicate()

    assert parent.process.returncode == 3
    assert complaint == (
        f"{folder}/postgres cannot be used: permission denied; "
        "choose a data folder that you can write, with --data or SWITCHBOARD_DATA\n"
    )


async def test_a_folder_that_postgres_may_not_enter_is_one_clear_line(own_folder: Path) -> None:
    closed = own_folder / "closed"
    (closed / "postgres").mkdir(parents=True)
    closed.chmod(0o700)

    with pytest.raises(FolderUnusable, match=f"which may not enter {closed}; choose a data folder outside it"):
        require_traversable(closed / "postgres", user=65533)


async def test_configured_servers_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWITCHBOARD_POSTGRES_DSN", "postgresql://me:secret@db.example/app")
    monkeypatch.setenv("SWITCHBOARD_KAFKA_BOOTSTRAP", "kafka.example:9092")
    monkeypatch.setenv("SWITCHBOARD_DATA", str(tmp_path / "untouched"))

    with ensure_servers() as servers:
        assert servers.postgres_dsn == "postgresql://me:secret@db.example/app"
        assert servers.kafka_bootstrap == "kafka.example:9092"
        assert servers.pids == {}
    assert not (tmp_path / "untouched").exists()


async def test_what_is_not_configured_is_embedded(own_folder: Path, software: Path) -> None:
    (own_folder / "software").symlink_to(software)
    settings = ServerSettings(data=own_folder, kafka_bootstrap="kafka.example:9092")

    with ensure_servers(settings, durable=False) as servers:
        assert await ask(servers.postgres_dsn, "SELECT 1") == 1
        assert servers.kafka_bootstrap == "kafka.example:9092"
        assert set(servers.pids) == {"postgres"}
    assert servers.pids == {}


async def test_a_closed_umask_does_not_keep_postgres_out(own_folder: Path, software: Path) -> None:
    before = os.umask(0o077)
    try:
        with EmbeddedPostgres(own_folder / "new" / "postgres", software=software, durable=False) as server:
            assert await ask(server.dsn, "SELECT 1") == 1
            assert server.folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


async def test_servers_see_nothing_of_our_environment(
    own_folder: Path, software: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHBOARD_SECRET_KEYS", "k1:secret")
    monkeypatch.setenv("PGPORT", "1")
    with EmbeddedPostgres(own_folder / "postgres", software=software, durable=False) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()

    assert b"secret" not in environment
    assert b"PGPORT" not in environment


async def test_servers_do_not_show_their_password(standing_postgres: EmbeddedPostgres) -> None:
    password = (standing_postgres.folder / "password").read_text()

    assert password in standing_postgres.dsn
    assert password not in repr(standing_postgres)
    assert password not in repr(vars(standing_postgres)["_child"])
