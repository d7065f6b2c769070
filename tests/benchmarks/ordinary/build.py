"""Runs the ordinary build on the servers of a run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pyreqwest.client import ClientBuilder
from tests.benchmarks.outside.driver import Order, Report, drive
from tests.benchmarks.product import BODY, World
from tests.benchmarks.servers import BenchServers
from tests.benchmarks.usage import Usage, usage_of

from switchboard.embedded import free_port
from switchboard.ids import mint
from switchboard.store.migrate import migrate
from switchboard.testing import wait_until

_ROLES: Final = ("ingress", "router", "adapter", "delivery")
_TOPICS: Final = ("accepted", "dispatch", "attempts", "callbacks")
_PARTITIONS: Final = 6


class Ordinary:
    """The ordinary build, running."""

    def __init__(self, port: int, processes: dict[str, asyncio.subprocess.Process], servers: BenchServers) -> None:
        self._port = port
        self._processes = processes
        self._servers = servers
        self._next_recipient = 46_800_000_000

    def usage(self) -> dict[str, Usage]:
        """What every process has used."""
        own = {name: usage_of(process.pid) for name, process in self._processes.items()}
        return own | {name: usage_of(pid) for name, pid in self._servers.pids.items()}

    async def send(self, messages: int, connections: int = 64) -> Report:
        """Send messages, each to a recipient of its own."""
        first, self._next_recipient = self._next_recipient, self._next_recipient + messages
        body = msgspec.json.encode({"app_id": "ordinary", **BODY}).decode()
        return await drive(
            Order(
                host="127.0.0.1", port=self._port, path="/v1/projects/ordinary/messages:send", user="u", password="p",
                body=body, messages=messages, first_recipient=first, connections=connections,
            )
        )  # fmt: skip


@asynccontextmanager
async def ordinary(servers: BenchServers, world: World) -> AsyncIterator[Ordinary]:
    """Its four processes over a database and topics of their own, until the block ends."""
    prefix = f"ordinary.{mint()}."
    dsn = await _database(servers)
    await _topics(servers, prefix)
    port = free_port()
    settings = msgspec.json.encode(
        {
            "dsn": dsn, "bootstrap": servers.kafka.bootstrap, "prefix": prefix, "port": port,
            "smsc_port": world.smsc.told, "webhook": f"http://127.0.0.1:{world.receiver.told}/ordinary",
            "webhook_secret": "benchmark-secret",
        }
    ).decode()  # fmt: skip
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        for role in _ROLES:
            processes[role] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"tests.benchmarks.ordinary.{role}", env={**os.environ, "ORDINARY": settings}
            )
        await _answers(port)
        yield Ordinary(port, processes, servers)
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _database(servers: BenchServers) -> str:
    name = f"ordinary_{mint().lower()}"
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    dsn = servers.postgres.dsn_of(name)
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO switchboard.lanes (id, kind, interval_ns, tat, max_in_flight)"
            " VALUES ('dispatch:ordinary', 'dispatch', 10000, now(), 1000000)"
        )
    finally:
        await connection.close()
    return dsn


async def _topics(servers: BenchServers, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(prefix + name, _PARTITIONS, 1) for name in _TOPICS])
    finally:
        await admin.close()


async def _answers(port: int) -> None:
    async with ClientBuilder().no_proxy().build() as http:

        async def is_up() -> bool:
            try:
                response = await http.get(f"http://127.0.0.1:{port}/ready").build().send()
            except Exception:  # noqa: BLE001  # not yet
                return False
            return response.status == 200

        await wait_until(is_up, 30, "the ordinary ingress answers")
