"""Measures the bare legs on the servers of a run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pyreqwest.client import ClientBuilder
from tests.benchmarks.floor.legs import LegOrder
from tests.benchmarks.servers import BenchServers
from tests.benchmarks.usage import usage_of

from switchboard.embedded import free_port
from switchboard.ids import mint
from switchboard.testing import wait_until

_PAYLOAD: Final = "x" * 600
#: How often each leg occurs in the sum (DESIGN 12).
SERVERS: Final = 2
CLIENTS: Final = 2
HOPS: Final = 3


async def bare_legs(servers: BenchServers, messages: int) -> dict[str, float]:
    """CPU-microseconds a message of all bare legs together, by what spends them."""
    http = await _http(messages)
    kafka = await _kafka(servers, messages)
    store = await _store(servers, messages)
    return {**http, **kafka, **store}


async def _http(messages: int) -> dict[str, float]:
    order = LegOrder(messages=messages, payload=_PAYLOAD, port=free_port())
    async with _leg("server", order) as server:
        await _answers(order.port)
        before = usage_of(server.pid).cpu_seconds
        client = await _run("client", order)
        served = usage_of(server.pid).cpu_seconds - before
        assert server.stdin is not None
        server.stdin.close()
    return {"2 ASGI servers": SERVERS * served * 1e6 / messages, "2 HTTP clients": CLIENTS * client * 1e6 / messages}


async def _kafka(servers: BenchServers, messages: int) -> dict[str, float]:
    topics = [f"bare.{mint()}" for _ in range(HOPS + 1)]
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in topics])
        orders = [
            LegOrder(
                messages=messages,
                payload=_PAYLOAD,
                bootstrap=servers.kafka.bootstrap,
                topics=(topics[n], topics[n + 1]),
            )
            for n in range(HOPS)
        ]
        await _run("fill", orders[0])
        before = usage_of(servers.pids["kafka"]).cpu_seconds
        hops = 0.0
        for order in orders:
            hops += await _run("hop", order)
        broker = usage_of(servers.pids["kafka"]).cpu_seconds - before
        await admin.delete_topics(topics)
    finally:
        await admin.close()
    return {"3 Kafka hops": hops * 1e6 / messages, "kafka": broker * 1e6 / messages}


async def _store(servers: BenchServers, messages: int) -> dict[str, float]:
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        await connection.execute(
            "DROP TABLE IF EXISTS bare; CREATE TABLE bare ("
            ' id text COLLATE "C" PRIMARY KEY, state text NOT NULL, step integer NOT NULL, body bytea NOT NULL)'
        )
        before = usage_of(servers.pids["postgres"]).cpu_seconds
        spent = await _run("store", LegOrder(messages=messages, payload=_PAYLOAD, dsn=servers.postgres.dsn))
        database = usage_of(servers.pids["postgres"]).cpu_seconds - before
        await connection.execute("DROP TABLE bare")
    finally:
        await connection.close()
    return {"COPY and 3 updates": spent * 1e6 / messages, "postgres": database * 1e6 / messages}


async def _run(name: str, order: LegOrder) -> float:
    """Run a leg to its end. Returns the CPU-seconds of its work."""
    async with _leg(name, order) as leg:
        said, _ = await leg.communicate()
        assert leg.returncode == 0, f"the leg {name} failed"
    return float(said)


@asynccontextmanager
async def _leg(name: str, order: LegOrder) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.floor.legs", name,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    try:
        yield process
        await asyncio.wait_for(process.wait(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _answers(port: int) -> None:
    async with ClientBuilder().no_proxy().build() as http:

        async def is_up() -> bool:
            try:
                await http.post(f"http://127.0.0.1:{port}/").body_bytes(b"x").build().send()
            except Exception:  # noqa: BLE001  # not yet
                return False
            return True

        await wait_until(is_up, 20, "the bare server answers")
