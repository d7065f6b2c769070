"""What deliveries mean: the samples, and names that tell a repeat from a second text."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import switchboard_channels.sms as channel
from switchboard.channel.contract import InboundFact
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.inbound import Deliveries, put_together, read_delivery
from switchboard_channels.sms.pdu import DataSm, DeliverSm, Frame, PduStream

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ACCOUNT = SmscAccount(host="smsc", system_id="switchboard")  # type: ignore[call-arg]
SAMPLES = sorted((Path(channel.__file__).parent / "samples").glob("*.json"))


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_samples_are_read_as_they_say(path: Path) -> None:
    sample: dict[str, Any] = json.loads(path.read_text())
    [frame] = PduStream().feed(bytes.fromhex("".join(sample["pdu"])))
    assert isinstance(frame, Frame)
    assert isinstance(frame.body, DeliverSm | DataSm)
    account = SmscAccount(host="smsc", system_id="switchboard", **sample.get("account", {}))
    read = read_delivery(frame.body, account, NOW, "name")
    told = json.loads(msgspec.json.encode(read))

    assert type(read).__name__ == sample["kind"]
    assert {name: told.get(name) for name in sample["told"]} == sample["told"]


def test_there_are_samples_of_every_kind() -> None:
    kinds = {json.loads(path.read_text())["kind"] for path in SAMPLES}

    assert kinds == {"ReceiptFact", "InboundFact", "InboundPart", "UnsupportedFact", "Nothing"}


def say(text: bytes = b"ok") -> DeliverSm:
    return DeliverSm(source_addr="46701230001", destination_addr="4670", short_message=text)


class Clock:
    """Names deliveries as a session would."""

    def __init__(self) -> None:
        self.deliveries = Deliveries()
        self.now = NOW
        self.closed = asyncio.Event()

    def name(self, body: DeliverSm, *, answered: bool = True) -> str:
        delivery = self.deliveries.name(body, self.closed, self.now)
        delivery.is_answered = answered
        return delivery.provider_id

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)

    def reconnect(self) -> None:
        self.closed.set()
        self.closed = asyncio.Event()


def test_what_was_answered_on_a_standing_connection_is_said_anew() -> None:
    clock = Clock()
    first = clock.name(say())
    clock.later(minutes=1)

    assert clock.name(say()) != first


def test_what_was_answered_on_a_lost_connection_is_the_same() -> None:
    clock = Clock()
    first = clock.name(say())
    clock.reconnect()
    clock.later(minutes=1)

    assert clock.name(say()) == first


def test_what_was_not_answered_is_the_same_once_the_smsc_may_have_given_up() -> None:
    clock = Clock()
    first = clock.name(say(), answered=False)
    clock.later(seconds=30)

    assert clock.name(say()) == first


def test_two_equal_texts_at_once_are_two() -> None:
    clock = Clock()
    first = clock.name(say(), answered=False)
    clock.later(seconds=1)

    assert clock.name(say()) != first


def test_after_a_while_nothing_is_a_repeat() -> None:
    clock = Clock()
    first = clock.name(say(), answered=False)
    clock.reconnect()
    clock.later(minutes=16)

    assert clock.name(say()) != first


def test_another_process_gives_the_same_name() -> None:
    assert Clock().name(say()) == Clock().name(say())
    assert Clock().name(say()) != Clock().name(say(b"no"))


def test_the_memory_of_deliveries_is_bounded() -> None:
    deliveries = Deliveries(limit=10)
    for number in range(100):
        deliveries.name(say(b"%d" % number), asyncio.Event(), NOW)

    assert len(deliveries._known) == len(deliveries._counts) == 10


def part(number: int, octets: bytes, data_coding: int = 8) -> Any:
    header = bytes((5, 0, 3, 7, 2, number))
    body = DeliverSm(
        source_addr="46701230001",
        destination_addr="4670",
        esm_class=0x40,
        data_coding=data_coding,
        short_message=header + octets,
    )
    return read_delivery(body, ACCOUNT, NOW, "unused")


def test_a_character_cut_between_parts_is_whole_again() -> None:
    octets = "Hej 😀!".encode("utf-16-be")
    fact = put_together([part(1, octets[:10]), part(2, octets[10:])], ACCOUNT)

    assert isinstance(fact, InboundFact)
    assert fact.message.text_message is not None
    assert fact.message.text_message.text == "Hej 😀!"


def test_the_same_parts_make_the_same_message_and_others_another() -> None:
    octets = "Hej".encode("utf-16-be")
    parts = [part(1, octets), part(2, octets)]
    first = put_together(parts, ACCOUNT)

    assert put_together([part(1, octets), part(2, octets)], ACCOUNT) == first
    other = put_together([part(1, octets), part(2, octets * 2)], ACCOUNT)
    assert other.provider_id != first.provider_id  # type: ignore[union-attr]


def test_the_group_of_a_part_does_not_show_whose_it_is() -> None:
    assert "46701230001" not in part(1, b"").group
