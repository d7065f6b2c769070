"""Sessions of the channel against the simulator's SMSC: what an attempt comes to, and what is heard back."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchboard.channel.contract import ReceiptFact
from switchboard.channel.errors import NotConfigured
from switchboard.channel.outcome import Accepted, FailedForNow, PartlyAccepted, Rejected, Unknown
from switchboard.reason import ReasonCode
from switchboard.status import Status as MessageStatus
from switchboard.testing.waiting import wait_until
from switchboard_channels.sms.adapter import SmsAdapter
from switchboard_channels.sms.concat import LongMessages
from switchboard_channels.sms.pdu import (
    BindReceiver,
    BindTransmitter,
    DeliverSm,
    DeliverSmResp,
    Status,
    SubmitSm,
    SubmitSmResp,
    Tag,
)
from switchboard_simulator.faults import Fault, FaultBook, FaultKind, FaultRule
from switchboard_simulator.journal import Journal, read_lines
from switchboard_simulator.phones import Phones
from switchboard_simulator.smsc.behaviour import Answering, Behaviour, Report
from switchboard_simulator.smsc.centre import IdForm, Login, ReceiptForm, Smsc, SmscSettings

from .desk import PHONE, Desk, Lease, account, attempt, session, utc_now
from .scripted import scripted_smsc

LONG_TEXT = "Fifty-three characters make this sentence, give or take. " * 6


class Ground:
    """An SMSC with its phones and log."""

    def __init__(self, folder: Path, settings: SmscSettings) -> None:
        self.phones = Phones()
        self.log = folder / "submissions.jsonl"
        self.journal = Journal(self.log)
        self.faults = FaultBook()
        self.smsc = Smsc(settings, self.phones, self.journal, faults=self.faults)

    @property
    def submissions(self) -> list[dict[str, Any]]:
        """What the SMSC saw."""
        return list(read_lines(self.log))

    def texts(self, number: str = PHONE) -> list[str]:
        """What stands on a phone, oldest first."""
        phone = self.phones.get("SMS", number)
        return [message.text for message in phone.messages] if phone else []


@asynccontextmanager
async def ground(folder: Path, **settings: Any) -> AsyncIterator[Ground]:
    made = Ground(folder, SmscSettings(redelivery_seconds=0.02, **settings))
    await made.smsc.start()
    try:
        yield made
    finally:
        await made.smsc.stop()
        made.journal.close()


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as made:
        yield made


# -- what an attempt comes to


async def test_a_text_is_accepted_shown_and_reported(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk) as sms:
        sent = attempt("Hello, [you] €")
        result = await sms.send(sent)
        await wait_until(lambda: desk.receipts)

    assert isinstance(result.outcome, Accepted)
    [receipt] = desk.receipts
    assert result.outcome.provider_ids[0] in receipt.provider_ids
    assert (receipt.status, receipt.identity) == (MessageStatus.DELIVERED, PHONE)
    assert receipt.channel_metadata == {"operator": "24001"}
    assert field.texts() == ["Hello, [you] €"]
    [line] = field.submissions
    assert (line["account"], line["recipient"], line["text"], line["accepted"]) == (
        "switchboard",
        PHONE,
        "Hello, [you] €",
        True,
    )
    [exchange] = result.exchanges
    assert (exchange.operation, exchange.answer) == ("submit_sm 1/1", "ESME_ROK")
    assert PHONE not in repr(result)


@pytest.mark.parametrize("way", list(LongMessages))
@pytest.mark.parametrize("text", [LONG_TEXT, "Жук 😀 " * 40], ids=["gsm7", "ucs2"])
async def test_a_long_text_reaches_the_phone_whole(field: Ground, way: LongMessages, text: str) -> None:
    desk = Desk()
    async with session(account(field.smsc.port, long_messages=way), desk) as sms:
        result = await sms.send(attempt(text))
        assert isinstance(result.outcome, Accepted)
        parts = len(result.outcome.provider_ids)
        await wait_until(lambda: len(desk.receipts) == parts)

    assert field.texts() == [text]
    assert parts == (1 if way is LongMessages.PAYLOAD else {LONG_TEXT: 3}.get(text, 5))
    references = {line["reference"] for line in field.submissions}
    assert len(references) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (Status.RINVDSTADR, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY, Rejected),
        (Status.RX_R_APPN, ReasonCode.CHANNEL_REJECT, Rejected),
        (Status.RINVSRCADR, ReasonCode.CHANNEL_BAD_CONFIGURATION, Rejected),
        (Status.RSYSERR, ReasonCode.CHANNEL_FAILURE, FailedForNow),
        (Status.RMSGQFUL, ReasonCode.RATE_LIMITED, FailedForNow),
        (Status.RX_T_APPN, ReasonCode.CHANNEL_FAILURE, FailedForNow),
        (0x0411, ReasonCode.CHANNEL_REJECT, Rejected),
    ],
)
async def test_a_refused_text_is_judged_by_its_status(field: Ground, status: int, code: ReasonCode, kind: type) -> None:
    field.smsc.rules.add(Behaviour(status=status))
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt())

    assert type(result.outcome) is kind
    assert isinstance(result.outcome, Rejected | FailedForNow)
    assert result.outcome.reason.code is code
    assert field.texts() == []


async def test_a_throttle_costs_no_try_and_stops_the_bind(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(status=Status.RTHROTTLED))
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt())

        assert isinstance(result.outcome, FailedForNow)
        assert result.outcome.throttled
        assert result.outcome.retry_after_seconds == 1.0
        assert sms.free_slots == 0
        assert sms.is_bound


async def test_a_refused_first_part_keeps_the_rest_back(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(status=Status.RX_P_APPN))
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt(LONG_TEXT))

    assert isinstance(result.outcome, Rejected)
    assert len(field.submissions) == 1


@pytest.mark.parametrize("status", [Status.RX_P_APPN, Status.RX_T_APPN])
async def test_a_later_part_refused_is_half_a_message(field: Ground, status: int) -> None:
    field.smsc.rules.add(Behaviour(status=status, part=2), count=None)
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt(LONG_TEXT))

    assert isinstance(result.outcome, PartlyAccepted)
    assert len(result.outcome.provider_ids) == 1
    assert [line["operation"] for line in field.submissions] == ["submit_sm 1/3", "submit_sm 2/3"]


async def test_a_later_part_throttled_goes_again_when_the_bind_may(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(status=Status.RTHROTTLED), skip=1)
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt(LONG_TEXT))
        await wait_until(lambda: field.texts())

    assert isinstance(result.outcome, Accepted)
    assert field.texts() == [LONG_TEXT]


async def test_no_answer_to_a_text_is_unknown_and_it_is_not_sent_again(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(answering=Answering.SWALLOWED))
    async with session(account(field.smsc.port, response_timeout_seconds=0.1)) as sms:
        result = await sms.send(attempt())

    assert isinstance(result.outcome, Unknown)
    assert result.outcome.parts == 1
    assert len(field.submissions) == 1


async def test_a_receipt_that_echoes_the_reference_names_the_text_nobody_answered_for(field: Ground) -> None:
    desk = Desk()
    field.smsc.rules.add(Behaviour(answering=Answering.WITHHELD))
    async with session(account(field.smsc.port, response_timeout_seconds=0.1), desk) as sms:
        result = await sms.send(attempt())
        await wait_until(lambda: desk.receipts)

    assert isinstance(result.outcome, Unknown)
    [name] = result.outcome.provider_ids
    [receipt] = desk.receipts
    assert name == receipt.provider_ids[-1]
    assert receipt.identity == PHONE


async def test_no_answer_to_a_later_part_is_unknown_with_the_ids_known(
    field: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchboard_channels.sms.session.SEND_TIMEOUT_SECONDS", 1.0)
    field.smsc.rules.add(Behaviour(answering=Answering.WITHHELD, part=2), count=None)
    async with session(account(field.smsc.port, response_timeout_seconds=0.1)) as sms:
        result = await sms.send(attempt(LONG_TEXT))

    assert isinstance(result.outcome, Unknown)
    assert len(result.outcome.provider_ids) == 2
    assert result.outcome.parts == 3
    assert [line["operation"] for line in field.submissions] == ["submit_sm 1/3", "submit_sm 2/3"]


@pytest.mark.parametrize("answering", [Answering.CUT_BEFORE, Answering.CUT_AFTER, Answering.GARBLED])
async def test_a_connection_lost_with_a_text_open_is_unknown_and_comes_back(
    field: Ground, answering: Answering
) -> None:
    field.smsc.rules.add(Behaviour(answering=answering))
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt())
        await wait_until(lambda: sms.is_bound)
        again = await sms.send(attempt("again"))

    assert isinstance(result.outcome, Unknown)
    assert isinstance(again.outcome, Accepted)
    assert len(field.submissions) == 2


async def test_a_text_that_was_never_written_may_go_again(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(answering=Answering.CUT_BEFORE))
    async with session(account(field.smsc.port, window=1)) as sms:
        written, waiting = await asyncio.gather(sms.send(attempt("one")), sms.send(attempt("two")))

    assert isinstance(written.outcome, Unknown)
    assert isinstance(waiting.outcome, FailedForNow)
    assert not waiting.outcome.throttled
    assert [line["text"] for line in field.submissions] == ["one"]


async def test_a_session_that_is_not_bound_takes_nothing(field: Ground) -> None:
    field.smsc.refuse_binds_with = Status.RSYSERR
    async with session(account(field.smsc.port), wait_for_bind=False) as sms:
        result = await sms.send(attempt())

        assert isinstance(result.outcome, FailedForNow)
        assert sms.free_slots == 0
        assert not sms.is_bound


@pytest.mark.parametrize(
    ("text", "properties", "code"),
    [
        ("Hello", {"SMS_SENDER": "TwelveLetter"}, ReasonCode.BAD_REQUEST),
        (LONG_TEXT, {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "2"}, ReasonCode.MESSAGE_SPLIT_REQUIRED),
        ("x" * 153 * 256, {}, ReasonCode.MESSAGE_SPLIT_REQUIRED),
        ("Hello", {"SMS_MAX_NUMBER_OF_MESSAGE_PARTS": "some"}, ReasonCode.BAD_REQUEST),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_sending(
    field: Ground, text: str, properties: dict[str, str], code: ReasonCode
) -> None:
    async with session(account(field.smsc.port)) as sms:
        result = await sms.send(attempt(text, properties=properties))

    assert isinstance(result.outcome, Rejected)
    assert result.outcome.reason.code is code
    assert field.submissions == []


async def test_first_parts_are_written_in_call_order(field: Ground) -> None:
    async with session(account(field.smsc.port, window=3)) as sms:
        await asyncio.gather(*(sms.send(attempt(f"{number:03}")) for number in range(50)))

    assert [line["text"] for line in field.submissions] == [f"{number:03}" for number in range(50)]


# -- receipts


@pytest.mark.parametrize(
    ("answers", "receipts"),
    [
        (IdForm.HEX, IdForm.HEX),
        (IdForm.HEX, IdForm.DECIMAL),
        (IdForm.UPPER_HEX, IdForm.HEX),
        (IdForm.DECIMAL, IdForm.HEX),
        (IdForm.DECIMAL, IdForm.PADDED),
        (IdForm.HEX, IdForm.PADDED),
    ],
)
@pytest.mark.parametrize("form", list(ReceiptForm))
async def test_receipts_find_their_message_however_ids_are_spelled(
    tmp_path: Path, answers: IdForm, receipts: IdForm, form: ReceiptForm
) -> None:
    async with ground(tmp_path, answer_ids=answers, receipt_ids=receipts, receipt_form=form) as field:
        desk = Desk()
        async with session(account(field.smsc.port), desk) as sms:
            result = await sms.send(attempt())
            await wait_until(lambda: desk.receipts)

    assert isinstance(result.outcome, Accepted)
    assert result.outcome.provider_ids[0] in desk.receipts[0].provider_ids


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("9915", [(MessageStatus.DELIVERED, None)] * 2),
        ("9916", [(MessageStatus.DELIVERED, None)]),
        ("9918", [(MessageStatus.FAILED, ReasonCode.RECIPIENT_NOT_REACHABLE)]),
        ("9919", [(MessageStatus.FAILED, ReasonCode.DELIVERY_TIMED_OUT)]),
        ("9920", [(MessageStatus.FAILED, ReasonCode.CHANNEL_REJECT)]),
        ("9924", [(MessageStatus.DELIVERED, None)]),
        (
            "9926",
            [(MessageStatus.FAILED, ReasonCode.RECIPIENT_NOT_REACHABLE), (MessageStatus.DELIVERED, None)],
        ),
        ("9929", [(MessageStatus.FAILED, ReasonCode.RECIPIENT_NOT_OPTED_IN)]),
    ],
)
async def test_magic_numbers_report_what_their_table_says(
    field: Ground, ending: str, told: list[tuple[MessageStatus, ReasonCode | None]]
) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk) as sms:
        result = await sms.send(attempt(to=f"4670123{ending}"))
        await wait_until(lambda: len(desk.receipts) == len(told))

    assert isinstance(result.outcome, Accepted)
    assert [(fact.status, fact.reason and fact.reason.code) for fact in desk.receipts] == told


async def test_an_early_receipt_arrives_before_the_answer(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk) as sms:
        sending = asyncio.create_task(sms.send(attempt(to="46701239916")))
        await wait_until(lambda: desk.receipts)
        assert not sending.done()
        result = await sending

    assert isinstance(result.outcome, Accepted)
    assert result.outcome.provider_ids[0] in desk.receipts[0].provider_ids


async def test_silence_is_silence(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk) as sms:
        await sms.send(attempt(to="46701239914"))
        await sms.send(attempt())
        await wait_until(lambda: desk.receipts)

    assert [fact.identity for fact in desk.receipts] == [PHONE]
    assert field.texts("46701239914") == []


async def test_a_receipt_is_answered_only_once_it_is_durable(field: Ground) -> None:
    desk = Desk()
    desk.may_store.clear()
    async with session(account(field.smsc.port), desk) as sms:
        await sms.send(attempt())
        await wait_until(lambda: desk.calls)
        assert field.smsc.deliveries_done == 0
        # Receipts that wait hold back no send.
        assert isinstance((await sms.send(attempt())).outcome, Accepted)
        desk.may_store.set()
        await wait_until(lambda: field.smsc.deliveries_done == 2)

    assert len(desk.receipts) == 2


async def test_a_receipt_the_host_could_not_store_comes_again(field: Ground) -> None:
    desk = Desk()
    desk.troubles = [ConnectionError("the database is away")]
    async with session(account(field.smsc.port), desk) as sms:
        await sms.send(attempt())
        await wait_until(lambda: field.smsc.deliveries_done)

    assert len(desk.receipts) == 1


async def test_receipts_for_a_message_of_the_last_connection_come_to_the_next(field: Ground) -> None:
    desk = Desk()
    field.smsc.rules.add(Behaviour(reports=(Report(delay_seconds=0.1),)))
    async with session(account(field.smsc.port), desk) as sms:
        await sms.send(attempt())
        field.smsc.peers[0].cut()
        await wait_until(lambda: desk.receipts)
        assert sms.is_bound


async def test_a_report_by_hand_comes_as_a_receipt(field: Ground) -> None:
    desk = Desk()
    field.smsc.rules.add(Behaviour(reports=()))
    async with session(account(field.smsc.port), desk) as sms:
        result = await sms.send(attempt())
        assert isinstance(result.outcome, Accepted)
        field.smsc.report(result.outcome.provider_ids[0], "EXPIRED")
        await wait_until(lambda: desk.receipts)

    assert desk.receipts[0].status is MessageStatus.FAILED


# -- inbound


async def test_a_person_writes_and_the_host_hears_it(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", "Tschüß €")
        await wait_until(lambda: desk.inbound)

    [fact] = desk.inbound
    assert fact.message.text_message is not None
    assert fact.message.text_message.text == "Tschüß €"
    assert (fact.identity, fact.sender_id) == (PHONE, "46700000001")
    assert fact.channel_metadata == {"operator": "24001"}


@pytest.mark.parametrize("way", list(LongMessages))
async def test_a_long_text_from_a_person_is_put_together_in_any_order(field: Ground, way: LongMessages) -> None:
    desk = Desk()
    text = "Der Bär, der Käfer und 😀. " * 12
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", text, long_messages=way, order=lambda parts: parts[::-1])
        await wait_until(lambda: desk.inbound)
        await wait_until(lambda: field.smsc.deliveries_done == max(1, sum(map(len, desk.parts.values()))))

    [fact] = desk.inbound
    assert fact.message.text_message is not None
    assert fact.message.text_message.text == text


async def test_a_part_delivered_again_makes_no_second_message(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", LONG_TEXT, times=2)
        await wait_until(lambda: field.smsc.deliveries_done == 6)

    assert len(desk.inbound) == 1


async def test_a_text_that_could_not_be_stored_comes_again_as_the_same(field: Ground) -> None:
    desk = Desk()
    desk.troubles = [ConnectionError("the database is away")] * 2
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", "Hi")
        await wait_until(lambda: desk.inbound)

    assert len(desk.inbound) == 1


async def test_a_person_who_writes_the_same_twice_is_heard_twice(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", "ok")
        await wait_until(lambda: desk.inbound)
        field.smsc.say(PHONE, "46700000001", "ok")
        await wait_until(lambda: len(desk.inbound) == 2)


async def test_a_delivery_whose_answer_was_lost_is_the_same_on_the_next_bind() -> None:
    desk, adapter = Desk(), SmsAdapter()
    delivery = DeliverSm(source_addr_ton=1, source_addr=PHONE, destination_addr="4670", short_message=b"ok")
    async with scripted_smsc() as smsc, session(account(smsc.port), desk, adapter=adapter, wait_for_bind=False):
        first = await smsc.caller()
        await first.let_in()
        first.write(delivery, 1)
        await wait_until(lambda: desk.facts)
        first.cut()
        second = await smsc.caller()
        await second.let_in()
        second.write(delivery, 1)
        assert (await second.expect(DeliverSmResp)).status == Status.ROK
        second.cut()

    assert len(desk.facts) == 2
    assert len(desk.inbound) == 1


async def test_a_flood_of_deliveries_is_bounded_and_told_to_come_again() -> None:
    desk = Desk()
    desk.may_store.clear()
    async with scripted_smsc() as smsc, session(account(smsc.port), desk, wait_for_bind=False):
        caller = await smsc.caller()
        await caller.let_in()
        for number in range(1, 1_500):
            caller.write(DeliverSm(source_addr=PHONE, short_message=b"%d" % number), number)
        answer = await caller.expect(DeliverSmResp)
        assert answer.status == Status.RX_T_APPN
        assert not desk.facts
        desk.may_store.set()
        statuses = [answer.status]
        while len(statuses) < 1_499:
            statuses.append((await caller.expect(DeliverSmResp)).status)
        caller.cut()

    assert statuses.count(Status.ROK) == len(desk.facts)


async def test_one_delivery_that_cannot_be_stored_does_not_keep_back_its_neighbours() -> None:
    class Picky(Desk):
        async def receive(self, facts: Any) -> None:
            if any(isinstance(fact, ReceiptFact) for fact in facts):
                raise ValueError("not this one")
            await super().receive(facts)

    desk = Picky()
    desk.may_store.clear()
    async with scripted_smsc() as smsc, session(account(smsc.port), desk, wait_for_bind=False):
        caller = await smsc.caller()
        await caller.let_in()
        caller.write(DeliverSm(source_addr=PHONE, short_message=b"one"), 1)
        await wait_until(lambda: desk.calls)
        caller.write(DeliverSm(esm_class=4, short_message=b"id:1 stat:DELIVRD"), 2)
        caller.write(DeliverSm(source_addr=PHONE, short_message=b"three"), 3)
        desk.may_store.set()
        answers = [await caller.expect(DeliverSmResp) for _ in range(3)]
        caller.cut()

    assert sorted((frame.sequence, frame.status) for frame in answers) == [
        (1, Status.ROK),
        (2, Status.RX_T_APPN),
        (3, Status.ROK),
    ]


# -- staying connected


async def test_the_session_comes_back_when_the_smsc_was_away(field: Ground) -> None:
    async with session(account(field.smsc.port)) as sms:
        await field.smsc.stop()
        await wait_until(lambda: not sms.is_bound)
        await field.smsc.start()
        await wait_until(lambda: sms.is_bound)

        assert isinstance((await sms.send(attempt())).outcome, Accepted)


async def test_the_session_comes_back_after_the_smsc_unbound_it(field: Ground) -> None:
    async with session(account(field.smsc.port)) as sms:
        [peer] = field.smsc.bound()
        peer.unbind()
        await peer.closed.wait()
        await wait_until(lambda: field.smsc.bound() and sms.is_bound)


async def test_wrong_credentials_are_an_alarm_and_not_hammered(tmp_path: Path) -> None:
    async with (
        ground(tmp_path, logins={"switchboard": Login("other")}) as field,
        session(account(field.smsc.port), wait_for_bind=False) as sms,
    ):
        await wait_until(lambda: sms._refused_with)
        result = await sms.send(attempt())

        assert isinstance(result.outcome, Rejected)
        assert result.outcome.misconfigured
        assert result.outcome.reason.code is ReasonCode.CHANNEL_BAD_CONFIGURATION
        await wait_until(lambda: field.smsc.peers == [])


@pytest.mark.parametrize(
    ("status", "pause"),
    [(Status.RBINDFAIL, 60.0), (Status.RINVPASWD, 60.0), (Status.RINVSYSID, 60.0), (Status.RALYBND, 30.0)],
)
async def test_a_refused_bind_waits_as_long_as_its_status_says(field: Ground, status: int, pause: float) -> None:
    field.smsc.refuse_binds_with = status
    sms = SmsAdapter().session(account(field.smsc.port), Desk(), Lease())

    assert await sms._hold(failures=0) == pause


async def test_pauses_double_with_jitter_up_to_the_longest(field: Ground) -> None:
    await field.smsc.stop()
    given = account(field.smsc.port, first_reconnect_seconds=1.0, longest_reconnect_seconds=60.0)
    sms = SmsAdapter().session(given, Desk(), Lease())
    for failures, longest in ((0, 1.0), (1, 2.0), (3, 8.0), (6, 60.0), (5_000, 60.0)):
        pause = await sms._hold(failures)

        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [(Behaviour(delay_seconds=0.05), Accepted), (Behaviour(answering=Answering.WITHHELD), Unknown)],
    ids=["answered in time", "never answered"],
)
async def test_a_lost_lease_stops_writing_at_once_and_ends_the_session(
    field: Ground, behaviour: Behaviour, outcome: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchboard_channels.sms.session.LOST_LEASE_SECONDS", 0.3)
    lease = Lease()
    field.smsc.rules.add(behaviour)
    async with session(account(field.smsc.port, window=1), lease=lease) as sms:
        sending, waiting = (asyncio.create_task(sms.send(attempt())) for _ in range(2))
        await wait_until(lambda: field.submissions)
        lease.lost.set()

        assert isinstance((await waiting).outcome, FailedForNow)
        assert isinstance((await sending).outcome, outcome)
        assert len(field.submissions) == 1
        await wait_until(lambda: not field.smsc.peers)
        assert not sms.is_bound
        assert isinstance((await sms.send(attempt())).outcome, FailedForNow)


async def test_a_cancelled_session_unbinds_cleanly_after_open_answers(field: Ground) -> None:
    field.smsc.rules.add(Behaviour(delay_seconds=0.1))
    async with session(account(field.smsc.port)) as sms:
        sending = asyncio.create_task(sms.send(attempt()))
        await wait_until(lambda: field.submissions)

    assert isinstance((await sending).outcome, Accepted)
    assert field.smsc.peers == []


async def test_an_account_is_held_no_more_often_than_the_smsc_allows(tmp_path: Path) -> None:
    async with ground(tmp_path, logins={"switchboard": Login("secret", max_binds=1)}) as field:
        given = account(field.smsc.port, enquire_interval_seconds=0.05)
        async with session(given) as first, session(given, wait_for_bind=False) as second:
            await wait_until(lambda: second._refused_with == Status.RALYBND)
            assert len(field.smsc.bound()) == 1
            assert first.is_bound


async def test_a_pair_sends_on_one_bind_and_hears_on_the_other(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port, bind_mode="pair"), desk) as sms:
        assert sorted((peer.sends, peer.receives) for peer in field.smsc.bound()) == [(False, True), (True, False)]
        await sms.send(attempt())
        await wait_until(lambda: desk.receipts)
        for peer in field.smsc.bound():
            if peer.receives:
                peer.cut()
        await wait_until(lambda: len(field.smsc.bound()) == 2 and sms.is_bound)


async def test_a_pair_binds_a_transmitter_and_a_receiver() -> None:
    async with (
        scripted_smsc() as smsc,
        session(account(smsc.port, bind_mode="pair", address_range="4670"), wait_for_bind=False) as sms,
    ):
        callers = []
        for kind in (BindTransmitter, BindReceiver):
            caller = await smsc.caller()
            frame = await caller.let_in()
            assert isinstance(frame.body, kind)
            assert frame.body.address_range == "4670"
            callers.append(caller)
        await wait_until(lambda: sms.is_bound)
        for caller in callers:
            caller.cut()


# -- what is on the wire


@pytest.mark.parametrize(
    ("settings", "properties", "expected"),
    [
        ({}, {}, {"source_addr": "Acme", "source_addr_ton": 5, "source_addr_npi": 0, "data_coding": 0}),
        ({}, {"SMS_SENDER": "12345"}, {"source_addr": "12345", "source_addr_ton": 0, "source_addr_npi": 1}),
        ({}, {"SMS_SENDER": "+46700000001"}, {"source_addr": "46700000001", "source_addr_ton": 1}),
        ({"short_code_source": {"ton": 3, "npi": 0}}, {"SMS_SENDER": "12345"}, {"source_addr_ton": 3}),
        ({"default_sender": ""}, {}, {"source_addr": "", "source_addr_ton": 0}),
        ({}, {"SMS_FLASH_MESSAGE": "TRUE"}, {"data_coding": 0x10}),
        ({"flash_uses_f0": True}, {"SMS_FLASH_MESSAGE": "true"}, {"data_coding": 0xF0}),
        ({"service_type": "CMT"}, {}, {"service_type": "CMT"}),
        ({}, {}, {"registered_delivery": 1, "dest_addr_ton": 1, "dest_addr_npi": 1, "esm_class": 0}),
        ({}, {}, {"validity_period": "000000001000000R"}),
        ({"longest_validity_seconds": 60}, {}, {"validity_period": "000000000100000R"}),
    ],
)
async def test_the_submit_says_what_account_and_message_want(
    settings: dict[str, Any], properties: dict[str, str], expected: dict[str, Any]
) -> None:
    async with scripted_smsc() as smsc, session(account(smsc.port, **settings), wait_for_bind=False) as sms:
        caller = await smsc.caller()
        await caller.let_in()
        await wait_until(lambda: sms.is_bound)
        sending = asyncio.create_task(sms.send(attempt(ttl=600, properties=properties)))
        frame = await caller.expect(SubmitSm)
        caller.write(SubmitSmResp("1"), frame.sequence)
        await sending
        caller.cut()

    assert {name: getattr(frame.body, name) for name in expected} == expected


async def test_an_smsc_that_refuses_optional_parameters_gets_none() -> None:
    async with scripted_smsc() as smsc, session(account(smsc.port), wait_for_bind=False) as sms:
        caller = await smsc.caller()
        await caller.let_in()
        await wait_until(lambda: sms.is_bound)
        sending = asyncio.create_task(sms.send(attempt()))
        frame = await caller.expect(SubmitSm)
        assert isinstance(frame.body, SubmitSm)
        assert Tag.USER_MESSAGE_REFERENCE in frame.body.tlvs
        caller.write(SubmitSmResp(), frame.sequence, Status.ROPTPARNOTALLWD)
        frame = await caller.expect(SubmitSm)
        assert isinstance(frame.body, SubmitSm)
        assert frame.body.tlvs == {}
        caller.write(SubmitSmResp("1"), frame.sequence)

        assert isinstance((await sending).outcome, Accepted)
        caller.cut()


async def test_an_attempt_has_one_reference_and_another_attempt_another(field: Ground) -> None:
    async with session(account(field.smsc.port)) as sms:
        await sms.send(attempt(LONG_TEXT))
        await sms.send(attempt("other"))

    references = [line["reference"] for line in field.submissions]
    assert len(references) == 4
    assert len(set(references)) == 2


# -- TLS and settings


async def test_tls_is_spoken_and_checked(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    certificate_file, key_file = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    async with ground(tmp_path, tls=context) as field:
        given = account(field.smsc.port, tls=True, tls_ca_file=str(certificate_file), host="localhost")
        async with session(given) as sms:
            assert isinstance((await sms.send(attempt())).outcome, Accepted)
        distrustful = account(field.smsc.port, tls=True, host="localhost")
        sms = SmsAdapter().session(distrustful, Desk(), Lease())
        assert await sms._hold(failures=0) > 0
        assert field.smsc.bound() == []


async def test_an_account_in_use_is_still_equal_to_the_same_account_read_anew(field: Ground) -> None:
    given = account(field.smsc.port)
    async with session(given) as sms:
        await sms.send(attempt())

    assert given == account(field.smsc.port)
    assert given != account(field.smsc.port, window=11)


def test_settings_that_are_missing_or_wrong_are_named() -> None:
    adapter = SmsAdapter()
    with pytest.raises(NotConfigured):
        adapter.session(account(1, tls=True, tls_ca_file="/nowhere.pem"), Desk(), Lease())
    assert adapter.max_binds(account(1, max_binds=3)) == 3
    assert "secret" not in repr(account(1).settings)


# -- the simulator's faults


async def test_faults_of_the_control_api_are_faults_here(field: Ground) -> None:
    seen = []
    async with session(account(field.smsc.port, response_timeout_seconds=0.1)) as sms:
        for kind in FaultKind:
            field.faults.add(FaultRule(fault=Fault(kind=kind), channel="SMS", recipient=PHONE))
            await wait_until(lambda: sms.is_bound and sms.free_slots)
            seen.append((kind, type((await sms.send(attempt())).outcome)))

    assert dict(seen) == {
        FaultKind.REJECT: Rejected,
        FaultKind.SERVER_ERROR: FailedForNow,
        FaultKind.THROTTLE: FailedForNow,
        FaultKind.TIMEOUT_BEFORE_ACCEPT: Unknown,
        FaultKind.TIMEOUT_AFTER_ACCEPT: Unknown,
        FaultKind.CUT_BEFORE_ACCEPT: Unknown,
        FaultKind.CUT_AFTER_ACCEPT: Unknown,
        FaultKind.SLOW: Unknown,
        FaultKind.SILENCE: Accepted,
        FaultKind.GARBAGE: Unknown,
        FaultKind.DUPLICATE: Accepted,
        FaultKind.RECEIPT_LATE: Accepted,
        # Its answer takes longer than the tenth of a second there is here.
        FaultKind.RECEIPT_EARLY: Unknown,
        FaultKind.RECEIPT_FAILED: Accepted,
        FaultKind.RECEIPT_EXPIRED: Accepted,
    }


async def test_a_once_only_magic_number_takes_the_second_try(field: Ground) -> None:
    async with session(account(field.smsc.port)) as sms:
        first = await sms.send(attempt(to="46701239904"))
        second = await sms.send(attempt(to="46701239904"))

    assert isinstance(first.outcome, FailedForNow)
    assert isinstance(second.outcome, Accepted)


async def test_an_overdue_group_is_put_together_from_what_is_there(field: Ground) -> None:
    desk = Desk()
    async with session(account(field.smsc.port), desk):
        field.smsc.say(PHONE, "46700000001", LONG_TEXT, order=lambda parts: parts[:2])
        await wait_until(lambda: field.smsc.deliveries_done == 2)
    [group] = desk.parts.values()
    fact = SmsAdapter().put_together([group[number] for number in sorted(group)], account(field.smsc.port))

    assert LONG_TEXT.startswith(fact.message.text_message.text)  # type: ignore[union-attr]
    assert utc_now() - fact.event_at < timedelta(minutes=1)
