"""The SMSC within the simulator: the same phones, faults, log and control API as every other provider."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest

from switchboard_channels.sms.pdu import (
    BindTransceiver,
    BindTransceiverResp,
    Body,
    DeliverSm,
    DeliverSmResp,
    Frame,
    PduStream,
    SubmitSm,
    SubmitSmResp,
    encode,
)

B = TypeVar("B", bound=Body)
NUMBER, OURS = "46701234567", "46100"


class Peer:
    """A bound client that reads one PDU at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = PduStream()
        self._waiting: list[Frame] = []
        self._sequence = 0

    def write(self, body: Body, sequence: int | None = None) -> None:
        self._sequence += 1
        self._writer.write(encode(body, self._sequence if sequence is None else sequence))

    async def read(self, kind: type[B]) -> tuple[Frame, B]:
        """The next PDU of one kind; deliveries are answered, others passed over."""
        while True:
            while not self._waiting:
                frames = self._stream.feed(await self._reader.read(65536))
                self._waiting.extend(frame for frame in frames if isinstance(frame, Frame))
            frame = self._waiting.pop(0)
            if isinstance(frame.body, DeliverSm):
                self.write(DeliverSmResp(""), frame.sequence)
            if isinstance(frame.body, kind):
                return frame, frame.body

    async def submit(self, text: str) -> tuple[int, str]:
        """Submit a text; the status and the id it was answered with."""
        self.write(
            SubmitSm(
                source_addr=OURS, destination_addr=NUMBER, registered_delivery=1, short_message=text.encode("ascii")
            )
        )
        frame, answer = await self.read(SubmitSmResp)
        return frame.status, answer.message_id


@pytest.fixture
async def peer(simulator: Any) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.world.ports["smpp"])
    bound = Peer(reader, writer)
    bound.write(BindTransceiver("test", "secret"))
    await bound.read(BindTransceiverResp)
    yield bound
    writer.close()
    await writer.wait_closed()


async def test_an_sms_shows_on_its_phone_and_is_on_record(simulator: Any, peer: Peer) -> None:
    status, provider_id = await peer.submit("Hello")
    await peer.read(DeliverSm)

    phone = (await simulator.control("GET", f"phones/SMS/{NUMBER}")).json
    (line,) = simulator.submissions()
    assert status == 0
    assert [message["text"] for message in phone["messages"]] == ["Hello"]
    assert (line["channel"], line["account"], line["provider_id"]) == ("SMS", "test", provider_id)


async def test_a_person_can_answer_an_sms(simulator: Any, peer: Peer) -> None:
    await peer.submit("Hello")
    await peer.read(DeliverSm)

    await simulator.control("POST", "inbound", channel="SMS", **{"from": NUMBER}, to=OURS, text="Hi")
    _, inbound = await peer.read(DeliverSm)

    assert (inbound.source_addr, inbound.destination_addr, inbound.short_message) == (NUMBER, OURS, b"Hi")


async def test_a_receipt_can_be_given_by_hand(simulator: Any, peer: Peer) -> None:
    await simulator.fault("silence", channel="SMS")
    _, provider_id = await peer.submit("Hello")

    answer = await simulator.control("POST", "receipts", provider_id=provider_id, state="UNDELIV", error="153")
    _, receipt = await peer.read(DeliverSm)

    assert answer.status == 200
    assert b"stat:UNDELIV err:153" in receipt.short_message


async def test_a_fault_of_the_control_api_meets_an_sms(simulator: Any, peer: Peer) -> None:
    await simulator.fault("reject", channel="SMS", recipient=NUMBER, code=0x66)

    refused, taken = await peer.submit("Hello"), await peer.submit("Hello")

    assert refused == (0x66, "")
    assert taken[0] == 0
    assert [line["accepted"] for line in simulator.submissions()] == [False, True]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("receipt_failed", b"stat:UNDELIV err:153"),
        ("receipt_expired", b"stat:EXPIRED err:000"),
        ("receipt_late", b"stat:DELIVRD err:000"),
    ],
)
async def test_a_fault_of_receipts_comes_true(simulator: Any, peer: Peer, kind: str, words: bytes) -> None:
    await simulator.fault(kind, channel="SMS", delay_seconds=0.05)
    peer.write(_submit("Hello"))

    _, receipt = await peer.read(DeliverSm)

    assert words in receipt.short_message


async def test_a_fault_that_skips_meets_the_second_part_only(simulator: Any, peer: Peer) -> None:
    await simulator.fault("receipt_failed", channel="SMS", skip=1)
    for part in ("one", "two"):
        peer.write(_submit(part))

    receipts = [(await peer.read(DeliverSm))[1].short_message for _ in range(2)]

    assert [b"stat:UNDELIV" in receipt for receipt in receipts] == [False, True]


async def test_an_early_receipt_comes_before_the_answer(simulator: Any, peer: Peer) -> None:
    await simulator.fault("receipt_early", channel="SMS")
    peer.write(_submit("Hello"))

    receipt, _ = await peer.read(DeliverSm)
    answer, _ = await peer.read(SubmitSmResp)

    assert (receipt.status, answer.status) == (0, 0)


def _submit(text: str) -> SubmitSm:
    return SubmitSm(
        source_addr=OURS, destination_addr=NUMBER, registered_delivery=1, short_message=text.encode("ascii")
    )


async def test_a_channel_without_receipts_has_none_of_their_faults(simulator: Any) -> None:
    answer = await simulator.control("POST", "faults", channel="TELEGRAM", kind="receipt_late")

    assert answer.status == 400
    assert "TELEGRAM reports nothing" in answer.json["error"]
