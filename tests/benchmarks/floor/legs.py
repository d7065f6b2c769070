"""One leg in a process of its own: `python -m tests.benchmarks.floor.legs NAME`, its order as JSON on standard input.

What its work cost is the last thing it says: CPU-seconds of this process, by the system's count, without its start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec
import uvicorn
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from msgspec import Struct
from pyreqwest.client import ClientBuilder

from switchboard.ids import mint

#: Records and rows in a batch, as large as a busy service's.
BATCH: Final = 200
CONNECTIONS: Final = 64
_BATCH_BYTES: Final = 512 * 1024


class LegOrder(Struct, frozen=True, kw_only=True):
    """What a leg has to do."""

    messages: int
    #: About as much as our records and callbacks hold.
    payload: str
    port: int = 0
    bootstrap: str = ""
    topics: tuple[str, str] = ("", "")
    dsn: str = ""


async def server(order: LegOrder) -> None:
    """A bare ASGI server: reads the body, answers with a few bytes. Ends with its standard input."""
    answer = b'{"message_id":"01JD00000000000000000000000"}'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]}
        )
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(app, port=order.port, log_level="warning", access_log=False, lifespan="off")
    running = uvicorn.Server(config)

    async def until_told() -> None:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.readline)
        running.should_exit = True

    await asyncio.gather(running.serve(), until_told())


async def client(order: LegOrder) -> None:
    """A bare HTTP client: posts the payload so often."""
    body = order.payload.encode()
    left = iter(range(order.messages))
    async with ClientBuilder().no_proxy().timeout(timedelta(seconds=10)).build() as http:

        async def work() -> None:
            for _ in left:
                response = await http.post(f"http://127.0.0.1:{order.port}/").body_bytes(body).build().send()
                assert response.status == 200

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def fill(order: LegOrder) -> None:
    """Produce the records that the first hop reads. Not counted: who fills a topic is somebody else's leg."""
    producer = _producer(order)
    await producer.start()
    try:
        await _produce(producer, order.topics[0], [order.payload.encode()] * order.messages)
    finally:
        await producer.stop()


async def hop(order: LegOrder) -> None:
    """A pass-through hop: reads batches of one topic and produces them to the next, unchanged, acknowledged."""
    consumer = AIOKafkaConsumer(bootstrap_servers=order.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
    producer = _producer(order)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign([KafkaPartition(order.topics[0], 0)])
        seen = 0
        while seen < order.messages:
            lots = await consumer.getmany(timeout_ms=50, max_records=BATCH)
            for records in lots.values():
                await _produce(producer, order.topics[1], [record.value for record in records])
                seen += len(records)
    finally:
        await producer.stop()
        await consumer.stop()


def _producer(order: LegOrder) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=order.bootstrap, acks="all", enable_idempotence=True, max_batch_size=_BATCH_BYTES
    )


async def _produce(producer: AIOKafkaProducer, topic: str, values: Sequence[bytes]) -> None:
    now_ms = time.time_ns() // 1_000_000
    for start in range(0, len(values), BATCH):
        batch = producer.create_batch()
        for value in values[start : start + BATCH]:
            assert batch.append(key=b"12345678", value=value, timestamp=now_ms) is not None
        await (await producer.send_batch(batch, topic, partition=0))


async def store(order: LegOrder) -> None:
    """One COPY and three updates, in batches: about the row a message has."""
    connection = await asyncpg.connect(order.dsn)
    try:
        body = order.payload.encode()
        for start in range(0, order.messages, BATCH):
            ids = [mint() for _ in range(min(BATCH, order.messages - start))]
            await connection.copy_records_to_table(
                "bare", records=[(id, "SENDING", 0, body) for id in ids], columns=("id", "state", "step", "body")
            )
            for state in ("CLAIMED", "SUBMITTED", "FINAL"):
                await connection.execute(
                    "UPDATE bare SET state = new.state, step = new.step"
                    " FROM unnest($1::text[], $2::text[], $3::integer[]) AS new (id, state, step)"
                    " WHERE bare.id = new.id",
                    ids, [state] * len(ids), [1] * len(ids),
                )  # fmt: skip
    finally:
        await connection.close()


LEGS: Final[dict[str, Callable[[LegOrder], Awaitable[None]]]] = {
    "server": server,
    "client": client,
    "fill": fill,
    "hop": hop,
    "store": store,
}


def main() -> None:
    """Read the order, do the leg."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=LegOrder)
    uvloop.run(_counted(LEGS[sys.argv[1]](order)))


async def _counted(leg: Awaitable[None]) -> None:
    before = time.process_time()
    await leg
    print(time.process_time() - before)


if __name__ == "__main__":
    main()
