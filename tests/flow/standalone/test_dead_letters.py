"""`switchboard dead-letters` over a broker."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from switchboard.bus import (
    BusSettings,
    DeadLetterCause,
    DeadLetterReason,
    Producer,
    Record,
    TopicSpec,
    ensure_topics,
)
from switchboard.bus.deadletter import encode_dead_letter
from switchboard.topics import CALLBACKS
from switchboard_standalone.commands import dead_letters
from switchboard_standalone.trouble import Refused


@pytest.fixture
async def bus(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> BusSettings:
    """A broker with topics of this test, which the command finds by settings."""
    monkeypatch.setenv("SWITCHBOARD_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("SWITCHBOARD_TOPIC_PREFIX", topic_prefix)
    monkeypatch.setenv("SWITCHBOARD_POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/none")
    bus = BusSettings(bootstrap=kafka, topic_prefix=topic_prefix, client_id="test")
    await ensure_topics(kafka, [TopicSpec(CALLBACKS.name(topic_prefix), 1), TopicSpec(bus.dead_letter_topic, 2)])
    return bus


async def bury(bus: BusSettings, *payloads: bytes) -> None:
    """Make dead letters of records with these payloads."""
    cause = DeadLetterCause(DeadLetterReason.PERMANENT, "BrokenRecord", "quotes hush", 1)
    producer = Producer(bus)
    await producer.start()
    for offset, payload in enumerate(payloads):
        record = Record(CALLBACKS.name(bus.topic_prefix), 0, offset, b"key", payload, {"type": b"DeliverCallback"}, 0)
        await producer.publish([encode_dead_letter(bus.dead_letter_topic, record, "callback-delivery", cause)])
    await producer.stop()


async def test_without_any_it_says_so(bus: BusSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await dead_letters.list_dead_letters(tmp_path, 10)

    assert capsys.readouterr().out == "no dead letters\n"


async def test_the_newest_are_listed_without_what_they_hold(
    bus: BusSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await bury(bus, *(b"hush %d" % number for number in range(5)))

    await dead_letters.list_dead_letters(tmp_path, 3)

    told = capsys.readouterr().out
    places = re.findall(r"^(\d:\d+) .*callbacks\.v1 +0:(\d) +callback-delivery +permanent +BrokenRecord", told, re.M)
    assert [offset for _, offset in places] == ["4", "3", "2"]
    assert "hush" not in told


async def test_one_is_published_once_more_as_it_was(
    bus: BusSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await bury(bus, b"first", b"second")
    await dead_letters.list_dead_letters(tmp_path, 1)
    place = capsys.readouterr().out.splitlines()[-1].split()[0]

    await dead_letters.replay_dead_letter(tmp_path, place)

    consumer = AIOKafkaConsumer(
        CALLBACKS.name(bus.topic_prefix), bootstrap_servers=bus.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    record = await asyncio.wait_for(consumer.getone(), 20)
    await consumer.stop()
    assert (record.key, record.value) == (b"key", b"second")
    assert dict(record.headers)["type"] == b"DeliverCallback"


@pytest.mark.parametrize("place", ["nowhere", "0:99", "7:0", "0"])
async def test_a_place_without_one_is_refused(bus: BusSettings, tmp_path: Path, place: str) -> None:
    with pytest.raises(Refused, match=place):
        await dead_letters.replay_dead_letter(tmp_path, place)
