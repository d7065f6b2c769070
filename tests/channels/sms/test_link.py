"""One connection against an SMSC that does exactly what the test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from switchboard.testing.waiting import wait_until
from switchboard_channels.sms.link import (
    Answered,
    BindRefused,
    Link,
    LinkLost,
    LinkTimes,
    NotWritten,
    Pace,
    Unanswered,
    connect,
)
from switchboard_channels.sms.pdu import (
    BindTransceiver,
    BindTransceiverResp,
    DataSm,
    DeliverSm,
    DeliverSmResp,
    EnquireLink,
    EnquireLinkResp,
    GenericNack,
    QuerySm,
    Status,
    SubmitSm,
    SubmitSmResp,
    Unbind,
    UnbindResp,
)

from .scripted import Caller, Scripted, scripted_smsc

LONG = LinkTimes(response_timeout_seconds=30, enquire_interval_seconds=30, unbind_timeout_seconds=5)


@asynccontextmanager
async def linked(times: LinkTimes = LONG) -> AsyncIterator[tuple[Link, Caller, list[tuple[int, object]]]]:
    """A bound link, its other end, and what it is told."""
    heard: list[tuple[int, object]] = []
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, times, heard)
        binding = asyncio.create_task(link.bind(BindTransceiver("id", "pw")))
        await caller.let_in()
        await binding
        try:
            yield link, caller, heard
        finally:
            link.close("the test is over")
            caller.cut()
            await link.closed.wait()


async def dial(smsc: Scripted, times: LinkTimes, heard: list[tuple[int, object]]) -> tuple[Link, Caller]:
    def on_delivery(_: Link, sequence: int, body: DeliverSm | DataSm) -> None:
        heard.append((sequence, body))

    link = await connect("127.0.0.1", smsc.port, times, on_delivery)
    return link, await smsc.caller()


def submit(text: bytes = b"Hi") -> SubmitSm:
    return SubmitSm(destination_addr="46701230001", short_message=text)


async def test_a_bind_sends_the_credentials_and_version() -> None:
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, LONG, [])
        binding = asyncio.create_task(link.bind(BindTransceiver("id", "pw", "VMS")))
        frame = await caller.let_in()
        await binding

        assert frame.body == BindTransceiver("id", "pw", "VMS", 0x34)
        assert link.is_bound
        caller.cut()
        await link.closed.wait()


async def test_a_refused_bind_says_why_and_closes() -> None:
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, LONG, [])
        binding = asyncio.create_task(link.bind(BindTransceiver("id", "pw")))
        frame = await caller.read()
        caller.write(BindTransceiverResp(), frame.sequence, Status.RINVPASWD)

        with pytest.raises(BindRefused) as refused:
            await binding
        assert refused.value.status == Status.RINVPASWD
        await caller.closed()


async def test_a_bind_may_be_refused_by_generic_nack() -> None:
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, LONG, [])
        binding = asyncio.create_task(link.bind(BindTransceiver("id", "pw")))
        frame = await caller.read()
        caller.write(GenericNack(), frame.sequence, Status.RINVCMDID)

        with pytest.raises(BindRefused):
            await binding
        await caller.closed()


async def test_a_bind_without_an_answer_times_out_and_closes() -> None:
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, LinkTimes(bind_timeout_seconds=0.05), [])

        with pytest.raises(TimeoutError):
            await link.bind(BindTransceiver("id", "pw"))
        await caller.closed()


async def test_a_connection_cut_during_the_bind_is_lost() -> None:
    async with scripted_smsc() as smsc:
        link, caller = await dial(smsc, LONG, [])
        binding = asyncio.create_task(link.bind(BindTransceiver("id", "pw")))
        await caller.read()
        caller.cut()

        with pytest.raises(LinkLost):
            await binding


async def test_answers_are_matched_in_any_order() -> None:
    async with linked() as (link, caller, _):
        answers = [link.submit(submit(bytes((65 + number,)))) for number in range(3)]
        frames = [await caller.expect(SubmitSm) for _ in answers]
        for frame in reversed(frames):
            assert isinstance(frame.body, SubmitSm)
            caller.write(SubmitSmResp(frame.body.short_message.decode()), frame.sequence)

        assert [await answer for answer in answers] == [Answered(0, letter) for letter in "ABC"]


async def test_no_more_than_the_window_is_unanswered_and_order_is_kept() -> None:
    async with linked(LinkTimes(window=2)) as (link, caller, _):
        answers = [link.submit(submit(bytes((65 + number,)))) for number in range(5)]
        assert link.free_slots == 0
        seen = []
        for _ in range(4):
            frame = await caller.expect(SubmitSm)
            assert isinstance(frame.body, SubmitSm)
            seen.append(frame.body.short_message)
            # Two are open, the rest waits: each answer lets exactly one more go.
            written = sum(answer.done() for answer in answers) + len(link._unanswered)
            assert len(link._unanswered) <= 2
            assert written <= len(seen) + 1
            caller.write(SubmitSmResp("x"), frame.sequence)
            await answers[len(seen) - 1]
        frame = await caller.expect(SubmitSm)
        assert isinstance(frame.body, SubmitSm)
        caller.write(SubmitSmResp("x"), frame.sequence)
        await answers[4]

        assert [*seen, frame.body.short_message] == [b"A", b"B", b"C", b"D", b"E"]
        assert link.free_slots == 2


async def test_a_lost_connection_tells_written_from_unwritten() -> None:
    async with linked(LinkTimes(window=1)) as (link, caller, _):
        written, waiting = link.submit(submit()), link.submit(submit())
        await caller.expect(SubmitSm)
        caller.cut()

        assert isinstance(await written, Unanswered)
        assert isinstance(await waiting, NotWritten)
        assert isinstance(await link.submit(submit()), NotWritten)


async def test_a_submit_without_an_answer_is_perhaps_taken_and_frees_its_slot() -> None:
    async with linked(LinkTimes(window=1, response_timeout_seconds=0.05)) as (link, caller, _):
        first = link.submit(submit())
        frame = await caller.expect(SubmitSm)

        assert isinstance(await first, Unanswered)
        second = link.submit(submit())
        again = await caller.expect(SubmitSm)
        caller.write(SubmitSmResp("late"), frame.sequence)
        caller.write(SubmitSmResp("2"), again.sequence)
        assert await second == Answered(0, "2")
        assert link.late_answers == 1


async def test_a_submit_whose_turn_does_not_come_in_time_is_never_written() -> None:
    async with linked(LinkTimes(window=1, response_timeout_seconds=30, enquire_timeout_seconds=0.1)) as (
        link,
        caller,
        _,
    ):
        first = link.submit(submit(b"first"))
        frame = await caller.expect(SubmitSm)
        second = link.submit(submit(b"second"), asyncio.get_running_loop().time() + 0.05)

        assert isinstance(await second, NotWritten)
        caller.write(SubmitSmResp("1"), frame.sequence)
        await first
        third = link.submit(submit(b"third"))
        frame = await caller.expect(SubmitSm)
        assert isinstance(frame.body, SubmitSm)
        assert frame.body.short_message == b"third"
        caller.write(SubmitSmResp("3"), frame.sequence)
        await third


async def test_a_submit_that_nobody_waits_for_any_more_is_not_written() -> None:
    async with linked(LinkTimes(window=1)) as (link, caller, _):
        first = link.submit(submit(b"first"))
        abandoned = link.submit(submit(b"abandoned"))
        third = link.submit(submit(b"third"))
        abandoned.cancel()
        frame = await caller.expect(SubmitSm)
        caller.write(SubmitSmResp("1"), frame.sequence)
        await first
        frame = await caller.expect(SubmitSm)
        assert isinstance(frame.body, SubmitSm)
        caller.write(SubmitSmResp("3"), frame.sequence)

        assert frame.body.short_message == b"third"
        assert await third == Answered(0, "3")


async def test_a_throttle_stops_the_whole_link_and_doubles() -> None:
    async with linked(LinkTimes(window=2)) as (link, caller, _):
        first, second = link.submit(submit()), link.submit(submit())
        for _ in range(2):
            frame = await caller.expect(SubmitSm)
            caller.write(SubmitSmResp(), frame.sequence, Status.RTHROTTLED)

        # Both were written before the pause: it begins once, not twice.
        assert await first == Answered(Status.RTHROTTLED, "", 1.0)
        assert await second == Answered(Status.RTHROTTLED, "", 1.0)
        assert link.free_slots == 0
        third = link.submit(submit())
        assert not link._unanswered
        frame = await caller.expect(SubmitSm)
        caller.write(SubmitSmResp(), frame.sequence, Status.RTHROTTLED)
        assert await third == Answered(Status.RTHROTTLED, "", 2.0)


async def test_a_generic_nack_answers_its_submit() -> None:
    async with linked() as (link, caller, _):
        answer = link.submit(submit())
        frame = await caller.expect(SubmitSm)
        caller.write(GenericNack(), frame.sequence, Status.RINVCMDLEN)

        assert await answer == Answered(Status.RINVCMDLEN, "")


async def test_the_peer_is_answered_whether_it_asks_for_life_or_nonsense() -> None:
    async with linked() as (_, caller, heard):
        caller.write(EnquireLink(), 7)
        assert (await caller.expect(EnquireLinkResp)).sequence == 7
        caller.write_octets(bytes.fromhex("00000010 00000abc 00000000 00000008"))
        nack = await caller.expect(GenericNack)
        assert (nack.sequence, nack.status) == (8, Status.RINVCMDID)
        caller.write(QuerySm("1"), 9)
        assert (await caller.expect(GenericNack)).status == Status.RINVCMDID
        caller.write_octets(bytes.fromhex("00000012 00000005 00000000 0000000a 0000"))
        assert (await caller.expect(GenericNack)).sequence == 10
        # A response nobody asked for is passed over.
        caller.write(SubmitSmResp("1"), 99)
        caller.write(EnquireLink(), 11)
        assert (await caller.expect(EnquireLinkResp)).sequence == 11
        assert heard == []


async def test_an_impossible_length_is_answered_and_ends_the_connection() -> None:
    async with linked() as (link, caller, _):
        caller.write_octets(bytes.fromhex("00000004 00000005 00000000 00000008"))
        nack = await caller.expect(GenericNack)

        assert (nack.sequence, nack.status) == (8, Status.RINVCMDLEN)
        await caller.closed()
        await link.closed.wait()


async def test_an_unbind_from_the_peer_is_answered_and_nothing_more_is_sent() -> None:
    async with linked(LinkTimes(window=1)) as (link, caller, _):
        written, waiting = link.submit(submit()), link.submit(submit())
        await caller.expect(SubmitSm)
        caller.write(Unbind(), 7)

        assert (await caller.expect(UnbindResp)).sequence == 7
        assert isinstance(await waiting, NotWritten)
        assert isinstance(await written, Unanswered)
        await caller.closed()


async def test_leaving_waits_for_open_answers_and_unbinds() -> None:
    async with linked() as (link, caller, _):
        answer = link.submit(submit())
        frame = await caller.expect(SubmitSm)
        leaving = asyncio.create_task(link.leave())
        caller.write(SubmitSmResp("1"), frame.sequence)
        unbind = await caller.expect(Unbind)
        caller.write(UnbindResp(), unbind.sequence)
        await leaving

        assert await answer == Answered(0, "1")


async def test_leaving_a_silent_peer_takes_no_longer_than_allowed() -> None:
    async with linked(LinkTimes(unbind_timeout_seconds=0.05)) as (link, caller, _):
        answer = link.submit(submit())
        await caller.expect(SubmitSm)
        await link.leave()

        assert isinstance(await answer, Unanswered)


async def test_a_silent_peer_is_asked_for_life_and_left_when_it_has_none() -> None:
    times = LinkTimes(enquire_interval_seconds=0.05, enquire_timeout_seconds=0.05)
    async with linked(times) as (link, caller, _):
        frame = await caller.expect(EnquireLink)
        caller.write(EnquireLinkResp(), frame.sequence)
        await caller.expect(EnquireLink)
        await link.closed.wait()

        assert link.why_closed == "enquire_link was not answered"


async def test_deliveries_are_handed_on_and_answered_by_sequence() -> None:
    async with linked() as (link, caller, heard):
        delivery = DeliverSm(source_addr="46701230001", short_message=b"Hi")
        caller.write(delivery, 70)
        await wait_until(lambda: heard)
        assert heard == [(70, delivery)]
        link.reply(heard[0][0], DeliverSmResp(), Status.RX_T_APPN)  # type: ignore[arg-type]

        answer = await caller.read()
        assert (answer.sequence, answer.status) == (70, Status.RX_T_APPN)


async def test_what_is_written_in_one_turn_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked(LinkTimes(window=100)) as (link, caller, _):
        assert link._transport is not None
        writes: list[bytes] = []
        write = link._transport.write

        def note(data: bytes) -> None:
            writes.append(data)
            write(data)

        monkeypatch.setattr(link._transport, "write", note)
        answers = [link.submit(submit()) for _ in range(50)]
        for _ in answers:
            frame = await caller.expect(SubmitSm)
            caller.write(SubmitSmResp("1"), frame.sequence)
        await asyncio.gather(*answers)

        assert len(writes) == 1


def test_the_pace_lets_a_tenth_of_a_second_through_at_once_and_the_rest_in_time() -> None:
    pace = Pace(100.0, 0.0)
    taken = 0
    while pace.available(0.0) >= 1:
        pace.take()
        taken += 1
    assert taken == 10
    assert pace.seconds_until_next() == pytest.approx(0.01)

    for millisecond in range(1, 1_001):
        while pace.available(millisecond / 1000) >= 1:
            pace.take()
            taken += 1
    assert taken == 110


def test_a_slow_pace_still_lets_one_through() -> None:
    pace = Pace(0.5, 0.0)

    assert pace.available(0.0) == 1
    pace.take()
    assert pace.seconds_until_next() == pytest.approx(2.0)


async def test_a_paced_link_writes_no_faster_than_its_rate() -> None:
    async with linked(LinkTimes(window=100, rate_per_second=40.0)) as (link, caller, _):
        answers = [link.submit(submit()) for _ in range(14)]
        # A tenth of a second's worth at once; the rest waits for its time.
        assert (len(link._unanswered), link.free_slots) == (4, 0)
        for _ in answers:
            frame = await caller.expect(SubmitSm)
            caller.write(SubmitSmResp("1"), frame.sequence)
        await asyncio.gather(*answers)
