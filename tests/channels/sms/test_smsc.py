"""The simulator's SMSC as a peer sees it: accounts, commands, receipts, inbound, its log and its phones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from switchboard.testing.waiting import wait_until
from switchboard_channels.sms.pdu import (
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    Body,
    CancelSm,
    CancelSmResp,
    DataSm,
    DataSmResp,
    DeliverSm,
    DeliverSmResp,
    Destination,
    EnquireLink,
    EnquireLinkResp,
    Frame,
    GenericNack,
    QuerySm,
    QuerySmResp,
    ReplaceSm,
    ReplaceSmResp,
    Status,
    SubmitMulti,
    SubmitMultiResp,
    SubmitSm,
    SubmitSmResp,
    Tag,
    Unbind,
    UnbindResp,
)
from switchboard_channels.sms.receipt import MessageState
from switchboard_simulator.faults import FaultKind
from switchboard_simulator.journal import Journal, read_lines
from switchboard_simulator.phones import Phone, PhoneMessage, Phones
from switchboard_simulator.smsc.behaviour import Answering, Behaviour, SmscRules
from switchboard_simulator.smsc.centre import Login, NobodyBound, Smsc, SmscSettings, UnknownMessage
from switchboard_simulator.smsc.magic import MAGIC, MagicNumbers

from .scripted import Caller

PHONE = "46701230001"
TEXT = SubmitSm(
    source_addr="Acme",
    source_addr_ton=5,
    dest_addr_ton=1,
    destination_addr=PHONE,
    registered_delivery=1,
    short_message=b"Hi",
    tlvs={Tag.USER_MESSAGE_REFERENCE: b"\x12\x34"},
)


class Site:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.phones = Phones()
        self.log = folder / "submissions.jsonl"
        self.journal = Journal(self.log)
        self.smsc = Smsc(SmscSettings(redelivery_seconds=0.02, **settings), self.phones, self.journal)

    async def dial(self) -> Caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.smsc.port)
        return Caller(reader, writer)

    async def bound(self, system_id: str = "esme") -> Caller:
        caller = await self.dial()
        caller.write(BindTransceiver(system_id, "pw"), 1)
        assert (await caller.expect(BindTransceiverResp)).status == Status.ROK
        return caller


@asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    made = Site(folder, **settings)
    await made.smsc.start()
    try:
        yield made
    finally:
        await made.smsc.stop()
        made.journal.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        yield made


async def ask(caller: Caller, body: Body, sequence: int = 2) -> Frame:
    """Send a request and read its answer; deliveries on the way are answered."""
    caller.write(body, sequence)
    while True:
        frame = await caller.read()
        if not isinstance(frame.body, DeliverSm):
            return frame
        caller.write(DeliverSmResp(), frame.sequence)


@pytest.mark.parametrize(
    ("bind", "answer"),
    [
        (BindTransceiver, BindTransceiverResp),
        (BindTransmitter, BindTransmitterResp),
        (BindReceiver, BindReceiverResp),
    ],
)
@pytest.mark.parametrize(
    ("system_id", "password", "status"),
    [("esme", "pw", Status.ROK), ("esme", "no", Status.RINVPASWD), ("who", "pw", Status.RINVSYSID)],
)
async def test_only_known_accounts_are_let_in(
    tmp_path: Path, bind: Any, answer: Any, system_id: str, password: str, status: int
) -> None:
    async with site(tmp_path, logins={"esme": Login("pw")}) as here:
        caller = await here.dial()
        caller.write(bind(system_id, password), 1)

        assert (await caller.expect(answer)).status == status
        if status:
            await caller.closed()


async def test_an_account_binds_no_more_often_than_it_may(tmp_path: Path) -> None:
    async with site(tmp_path, logins={"esme": Login("pw", max_binds=1)}) as here:
        first = await here.bound()
        second = await here.dial()
        second.write(BindTransceiver("esme", "pw"), 1)
        assert (await second.expect(BindTransceiverResp)).status == Status.RALYBND
        assert isinstance((await ask(first, Unbind())).body, UnbindResp)
        await wait_until(lambda: not here.smsc.bound())
        await here.bound()


async def test_nothing_is_taken_before_a_bind_nor_on_a_receiver(here: Site) -> None:
    caller = await here.dial()
    assert (await ask(caller, TEXT)).status == Status.RINVBNDSTS
    caller.write(BindReceiver("esme", "pw"), 1)
    await caller.expect(BindReceiverResp)
    assert (await ask(caller, TEXT)).status == Status.RINVBNDSTS
    assert list(read_lines(here.log)) == []


async def test_it_lives_and_does_not_understand_everything(here: Site) -> None:
    caller = await here.bound()
    assert isinstance((await ask(caller, EnquireLink())).body, EnquireLinkResp)
    assert (await ask(caller, DeliverSm())).status == Status.RINVCMDID
    caller.write_octets(bytes.fromhex("0000000f 00000004 00000000 00000009"))
    nack = await caller.expect(GenericNack)
    assert (nack.sequence, nack.status) == (9, Status.RINVCMDLEN)
    await caller.closed()


async def test_every_command_has_its_answer(here: Site) -> None:
    caller = await here.bound()
    answer = await ask(caller, SubmitSm(destination_addr=PHONE, short_message=b"Hi"))
    assert isinstance(answer.body, SubmitSmResp)
    message_id = answer.body.message_id
    caller.write(QuerySm(message_id), 3)
    queried = await caller.expect(QuerySmResp)
    assert isinstance(queried.body, QuerySmResp)
    assert queried.body.message_state in (MessageState.ENROUTE, MessageState.DELIVERED)
    assert (await ask(caller, QuerySm("ffff"))).status == Status.RQUERYFAIL
    assert isinstance((await ask(caller, CancelSm(message_id=message_id))).body, CancelSmResp)
    assert (await ask(caller, CancelSm(message_id="zz"))).status == Status.RINVMSGID
    assert isinstance((await ask(caller, ReplaceSm(message_id))).body, ReplaceSmResp)
    data = DataSm(destination_addr=PHONE, tlvs={Tag.MESSAGE_PAYLOAD: b"Hi"})
    assert isinstance((await ask(caller, data)).body, DataSmResp)
    multi = SubmitMulti(destinations=(Destination(1, 1, PHONE),), short_message=b"Hi")
    assert isinstance((await ask(caller, multi)).body, SubmitMultiResp)


async def test_the_log_says_what_was_seen_before_anything_is_answered(here: Site) -> None:
    here.smsc.rules.add(Behaviour(answering=Answering.SWALLOWED, name="swallow"))
    caller = await here.bound()
    caller.write(TEXT, 2)
    answer = await ask(caller, TEXT, 3)
    lines = list(read_lines(here.log))

    assert isinstance(answer.body, SubmitSmResp)
    assert answer.sequence == 3
    shown = [
        {name: line[name] for name in ("operation", "recipient", "text", "accepted", "reference", "answer", "fault")}
        for line in lines
    ]
    common = {"operation": "submit_sm", "recipient": PHONE, "text": "Hi", "reference": "1234"}
    assert shown == [
        {**common, "accepted": False, "answer": "none", "fault": "swallow"},
        {**common, "accepted": True, "answer": "ESME_ROK", "fault": ""},
    ]
    assert lines[1]["provider_id"] == answer.body.message_id


async def test_a_receipt_says_it_in_text_and_tlvs(here: Site) -> None:
    caller = await here.bound()
    caller.write(TEXT, 2)
    answer = await caller.expect(SubmitSmResp)
    frame = await caller.expect(DeliverSm)
    caller.write(DeliverSmResp(), frame.sequence)

    assert isinstance(answer.body, SubmitSmResp)
    receipt, message_id = frame.body, answer.body.message_id
    assert isinstance(receipt, DeliverSm)
    assert (receipt.esm_class, receipt.source_addr, receipt.destination_addr) == (4, PHONE, "Acme")
    assert receipt.short_message.startswith(f"id:{message_id} sub:001 dlvrd:001 submit date:".encode())
    assert b" stat:DELIVRD err:000 text:Hi" in receipt.short_message
    assert receipt.tlvs[Tag.RECEIPTED_MESSAGE_ID] == message_id.encode() + b"\0"
    assert receipt.tlvs[Tag.MESSAGE_STATE] == b"\2"
    assert receipt.tlvs[Tag.MCCMNC] == b"24001\0"
    assert receipt.tlvs[Tag.USER_MESSAGE_REFERENCE] == b"\x12\x34"
    await wait_until(lambda: here.smsc.deliveries_done == 1)


async def test_no_receipt_comes_that_was_not_asked_for(here: Site) -> None:
    caller = await here.bound()
    await ask(caller, SubmitSm(destination_addr=PHONE, short_message=b"quiet"))
    caller.write(TEXT, 3)
    await caller.expect(SubmitSmResp)
    frame = await caller.expect(DeliverSm)

    assert isinstance(frame.body, DeliverSm)
    assert frame.body.short_message.endswith(b"text:Hi")


async def test_a_delivery_that_is_refused_is_made_again(here: Site) -> None:
    caller = await here.bound()
    here.smsc.say(PHONE, "4670", "Hi")
    for status in (Status.RX_T_APPN, Status.RMSGQFUL, Status.ROK):
        frame = await caller.expect(DeliverSm)
        caller.write(DeliverSmResp(), frame.sequence, status)
    await wait_until(lambda: here.smsc.deliveries_done == 1)


async def test_a_delivery_that_is_not_answered_is_made_again(tmp_path: Path) -> None:
    async with site(tmp_path, delivery_timeout_seconds=0.05) as here:
        caller = await here.bound()
        here.smsc.say(PHONE, "4670", "Hi")
        first = await caller.expect(DeliverSm)
        second = await caller.expect(DeliverSm)

        assert first.body == second.body


async def test_deliveries_wait_for_a_receiver(here: Site) -> None:
    here.smsc.say(PHONE, "4670", "Hi", account="esme")
    caller = await here.bound()
    frame = await caller.expect(DeliverSm)
    caller.write(DeliverSmResp(), frame.sequence)
    await wait_until(lambda: here.smsc.deliveries_done == 1)


async def test_a_reply_goes_to_the_account_that_wrote_from_that_number(here: Site) -> None:
    ours, _others = await here.bound("ours"), await here.bound("others")
    await ask(ours, SubmitSm(source_addr="4670", destination_addr=PHONE, short_message=b"Hi"))
    here.smsc.say(PHONE, "4670", "Hello back")
    frame = await ours.expect(DeliverSm)

    assert isinstance(frame.body, DeliverSm)
    assert frame.body.short_message == b"Hello back"


def test_nobody_hears_a_person_when_nobody_is_bound(tmp_path: Path) -> None:
    with pytest.raises(NobodyBound):
        Site(tmp_path).smsc.say(PHONE, "4670", "Hi")
    with pytest.raises(UnknownMessage):
        Site(tmp_path).smsc.report("12", "DELIVRD")


async def test_a_bind_that_is_too_fast_is_throttled(tmp_path: Path) -> None:
    async with site(tmp_path, messages_per_second=2) as here:
        caller = await here.bound()
        statuses = [(await ask(caller, TEXT, sequence)).status for sequence in range(2, 5)]

    assert statuses == [Status.ROK, Status.ROK, Status.RTHROTTLED]


async def test_a_phone_shows_whole_messages_and_what_was_reported(here: Site) -> None:
    seen: list[tuple[str, str]] = []

    def observe(phone: Phone, message: PhoneMessage) -> None:
        seen.append((message.text, message.state))

    here.phones.observe(observe)
    caller = await here.bound()
    header = b"\5\0\3\7\2"
    for number, text in ((2, b" world"), (1, b"Hello")):
        part = SubmitSm(
            source_addr="Acme",
            destination_addr=PHONE,
            esm_class=0x40,
            registered_delivery=1,
            short_message=header + bytes((number,)) + text,
        )
        assert (await ask(caller, part, number + 1)).status == Status.ROK
    await wait_until(lambda: len(seen) == 2)

    assert seen == [("Hello world", "held"), ("Hello world", "delivered")]
    here.smsc.say(PHONE, "Acme", "Thanks")
    assert seen[-1][0] == "Thanks"


def test_magic_endings_are_told_apart_and_documented() -> None:
    endings = [magic.ending for magic in MAGIC]

    assert len(set(endings)) == len(endings)
    assert all(ending.startswith("99") and len(ending) == 4 for ending in endings)
    assert all(magic.does for magic in MAGIC)
    assert MagicNumbers().behaviour(PHONE, b"Hi") is None


def test_a_once_only_ending_meets_each_text_once() -> None:
    numbers = MagicNumbers()

    assert numbers.behaviour("46701239904", b"one") is not None
    assert numbers.behaviour("46701239904", b"one") is None
    assert numbers.behaviour("46701239904", b"two") is not None


def test_rules_skip_count_and_leave() -> None:
    rules = SmscRules()
    refusing = Behaviour(status=Status.RSYSERR)
    rules.add(refusing, PHONE, count=2, skip=1)

    assert [rules.take("461"), *(rules.take(PHONE) for _ in range(4))] == [None, None, refusing, refusing, None]
    assert list(rules) == []
    number = rules.add(refusing, count=None)
    assert rules.take("anybody") is rules.take("anybody") is refusing
    assert rules.remove(number)
    assert not rules.remove(number)


def test_every_fault_of_the_control_api_is_known_here() -> None:
    from switchboard_simulator.faults import Fault
    from switchboard_simulator.smsc.behaviour import of_fault

    for kind in FaultKind:
        assert of_fault(Fault(kind=kind)).name == kind.value


def test_the_table_of_magic_numbers_is_written_down() -> None:
    import switchboard_simulator.smsc as smsc

    readme = (Path(smsc.__file__).parent / "README.md").read_text()

    assert [f"| {magic.ending} | {magic.does} |" for magic in MAGIC] == [
        line for line in readme.splitlines() if line.startswith("| 99")
    ]
