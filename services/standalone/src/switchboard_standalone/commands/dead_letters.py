"""What operators do with records that no handler could process: `switchboard dead-letters`."""

from __future__ import annotations

import heapq
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from rich.table import Table

from switchboard.bus import Producer
from switchboard.bus.deadletter import DeadLetter, decode_dead_letter
from switchboard_standalone.reach import Reach, home_of
from switchboard_standalone.screen import screen
from switchboard_standalone.trouble import Refused

#: Where a dead letter lies: the partition of its topic, and its offset there.
_PLACE: Final = re.compile(r"(\d{1,9}):(\d{1,18})")


async def list_dead_letters(data: Path | None, limit: int) -> int:
    """Show the newest dead letters, without what they hold."""
    reach = Reach.of(home_of(data))
    partitions = await _partitions(reach)
    async with _reading(reach) as consumer:
        found = heapq.nlargest(limit, [one async for one in _newest(consumer, partitions, limit)], key=_buried_at)
    table = Table(
        "place",
        "buried (UTC)",
        "record of",
        "it was at",
        "given up by",
        "why",
        "error",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for record in found:
        letter = decode_dead_letter(record.value)
        table.add_row(
            f"{record.partition}:{record.offset}", f"{letter.buried_at:%Y-%m-%d %H:%M:%S}", letter.topic,
            f"{letter.partition}:{letter.offset}", letter.group, letter.reason.value, letter.error,
        )  # fmt: skip
    if found:
        screen(markup=False).print(table)
    else:
        print("no dead letters")
    return 0


async def replay_dead_letter(data: Path | None, place: str) -> int:
    """Publish a record once more as it was, for after what broke it is mended."""
    reach = Reach.of(home_of(data))
    letter = await _letter(reach, place)
    producer = Producer(reach.bus)
    await producer.start()
    try:
        await producer.publish([letter.original()])
    finally:
        await producer.stop()
    print(f"the record is in {letter.topic} again; `switchboard dead-letters list` shows it if it fails again")
    return 0


async def _letter(reach: Reach, place: str) -> DeadLetter:
    matched = _PLACE.fullmatch(place)
    if matched is None:
        raise Refused(f"{place!r} is no place of a dead letter: PARTITION:OFFSET is expected, as in the list")
    number, offset = int(matched[1]), int(matched[2])
    partition = next((one for one in await _partitions(reach) if one.partition == number), None)
    if partition is not None:
        async with _reading(reach) as consumer:
            begins, ends = await consumer.beginning_offsets([partition]), await consumer.end_offsets([partition])
            if begins[partition] <= offset < ends[partition]:
                consumer.assign([partition])
                consumer.seek(partition, offset)
                record: ConsumerRecord[bytes, bytes] = await consumer.getone(partition)
                return decode_dead_letter(record.value)
    raise Refused(f"there is no dead letter at {place}; see `switchboard dead-letters list`")


async def _newest(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], limit: int
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """Up to so many of each partition, up to its end as it is now."""
    begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    left = {one for one in partitions if ends[one] > begins[one]}
    if not left:
        return
    consumer.assign(list(left))
    for one in left:
        consumer.seek(one, max(begins[one], ends[one] - limit))
    while left:
        record: ConsumerRecord[bytes, bytes] = await consumer.getone(*left)
        yield record
        partition = TopicPartition(record.topic, record.partition)
        if record.offset + 1 >= ends[partition]:
            left.discard(partition)


def _buried_at(record: ConsumerRecord[bytes, bytes]) -> tuple[int, int]:
    # Several may be of one millisecond.
    return record.timestamp, record.offset


async def _partitions(reach: Reach) -> list[TopicPartition]:
    topic = reach.bus.dead_letter_topic
    admin = AIOKafkaAdminClient(bootstrap_servers=reach.bus.bootstrap.split(","))
    await admin.start()
    try:
        [described] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if described["error_code"]:
        raise Refused(f"there is no topic {topic}; run `switchboard migrate`")
    return [TopicPartition(topic, part["partition"]) for part in described["partitions"]]


@asynccontextmanager
async def _reading(reach: Reach) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group. It must be asked something: one that is stopped at once hangs."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=reach.bus.bootstrap.split(","), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
