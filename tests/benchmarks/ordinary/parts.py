"""What the four processes of the ordinary build share: settings, and workers that keep a key's records in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from zlib import crc32

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import BaseModel

from switchboard.store.pool import PLANS_WITHOUT_STATISTICS, Pool

#: Records under way at once in a process, each key always with the same worker.
WORKERS = 16


class Settings(BaseModel):
    dsn: str
    bootstrap: str
    prefix: str
    port: int
    smsc_port: int
    webhook: str
    webhook_secret: str

    @classmethod
    def read(cls) -> Settings:
        return cls.model_validate_json(os.environ["ORDINARY"])


async def open_pool(settings: Settings) -> Pool:
    pool: Pool = await asyncpg.create_pool(
        settings.dsn,
        min_size=1,
        max_size=WORKERS,
        server_settings={"search_path": "switchboard, public", **PLANS_WITHOUT_STATISTICS},
    )
    return pool


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    return producer


async def consume(settings: Settings, topic: str, group: str, handle: Callable[[bytes], Awaitable[None]]) -> None:
    """Hand every record to the worker of its key; offsets are committed in the background."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(maxsize=64) for _ in range(WORKERS)]

    async def work(queue: asyncio.Queue[bytes]) -> None:
        while True:
            await handle(await queue.get())

    consumer = AIOKafkaConsumer(
        settings.prefix + topic, bootstrap_servers=settings.bootstrap, group_id=settings.prefix + group,
        auto_offset_reset="earliest",
    )  # fmt: skip
    await consumer.start()
    try:
        async with asyncio.TaskGroup() as group_of_workers:
            for queue in queues:
                group_of_workers.create_task(work(queue))
            async for record in consumer:
                await queues[crc32(record.key) % WORKERS].put(record.value)
    finally:
        await consumer.stop()
