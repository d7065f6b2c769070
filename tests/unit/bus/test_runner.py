"""Handlers at work under the policy, on a clock that the test moves."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from tests.unit.bus.fakes import PLACE, FakeClock, record, settle

from switchboard.bus import (
    BadRecords,
    BusError,
    DeadLetterCause,
    DeadLetterReason,
    InSlots,
    KnownErrors,
    Permanent,
    Record,
    RetryLimits,
    Slots,
    TopicPartition,
    Transient,
    UnknownRecordType,
    WaitCause,
)
from switchboard.bus.handler import BatchHandler
from switchboard.bus.runner import Runner


class Counts:
    """An observer."""

    def __init__(self) -> None:
        self.finished_records = 0
        self.retries: list[tuple[int, str]] = []
        self.dead: list[str] = []

    def finished(self, topic: str, count: int) -> None:
        self.finished_records += count

    def retried(self, topic: str, count: int, cause: str) -> None:
        self.retries.append((count, cause))

    def dead_lettered(self, topic: str, reason: str) -> None:
        self.dead.append(reason)


class Bench:
    """A runner, its clock, and everything that came out of it."""

    def __init__(
        self,
        handle: BatchHandler | InSlots,
        *,
        max_batch: int = 500,
        concurrency: int = 4,
        limit: int = 100,
    ) -> None:
        self.clock = FakeClock()
        self.counts = Counts()
        self.published: list[int] = []
        self.ended: list[tuple[int, DeadLetterCause]] = []
        self.burials_fail: list[Exception] = []
        self.alarms = 0
        self.runner = Runner(
            handle,
            publish_dead_letter=self._publish,
            on_dead_letter=self._end,
            too_many_dead_letters=self._alarm,
            observer=self.counts,
            clock=self.clock,
            max_batch=max_batch,
            concurrency=concurrency,
            limits=RetryLimits(),
            known=KnownErrors(),
            dead_letter_limit=limit,
            dead_letter_window_seconds=60.0,
            jitter=lambda: 0.0,
        )

    async def _publish(self, dead: Record, cause: DeadLetterCause) -> None:
        self.published.append(dead.offset)

    async def _end(self, dead: Record, cause: DeadLetterCause) -> None:
        assert self.watermark() <= dead.offset, "the offset passed before the message ended"
        if self.burials_fail:
            raise self.burials_fail.pop(0)
        self.ended.append((dead.offset, cause))

    def _alarm(self) -> None:
        self.alarms += 1

    async def arrive(self, *records: Record) -> None:
        self.runner.arrive(PLACE, list(records))
        await settle()

    def watermark(self) -> int:
        return self.runner.scheduler.watermarks()[PLACE]


class Scripted:
    """A batch handler that fails as told and remembers what it was given."""

    def __init__(self, fails: Callable[[Sequence[Record]], BaseException | None] = lambda records: None) -> None:
        self.batches: list[list[int]] = []
        self._fails = fails

    async def __call__(self, records: Sequence[Record], /) -> None:
        self.batches.append([record.offset for record in records])
        if (error := self._fails(records)) is not None:
            raise error


def whenever(offset: int, error: BaseException) -> Callable[[Sequence[Record]], BaseException | None]:
    return lambda records: error if any(record.offset == offset for record in records) else None


def distinct(count: int) -> list[Record]:
    return [record(offset, b"%d" % offset) for offset in range(count)]


async def test_finished_records_let_the_offset_pass() -> None:
    handler = Scripted()
    bench = Bench(handler)

    await bench.arrive(*distinct(5))

    assert handler.batches == [[0, 1, 2, 3, 4]]
    assert bench.watermark() == 5
    assert bench.runner.finished == bench.counts.finished_records == 5


async def test_records_with_one_key_are_handled_one_after_the_other() -> None:
    handler = Scripted()
    bench = Bench(handler)

    await bench.arrive(record(0), record(1), record(2))

    assert handler.batches == [[0], [1], [2]]


async def test_a_slow_key_does_not_hold_back_its_partition() -> None:
    gate, seen = asyncio.Event(), list[int]()

    async def handle(records: Sequence[Record]) -> None:
        if records[0].key == b"slow":
            await gate.wait()
        seen.extend(record.offset for record in records)

    bench = Bench(handle, max_batch=1)

    await bench.arrive(record(0, b"slow"), record(1, b"slow"), record(2, b"a"), record(3, b"b"), record(4, b"a"))

    assert seen == [2, 3, 4]
    assert bench.watermark() == 0
    gate.set()
    await settle()
    assert bench.watermark() == 5


async def test_a_transient_error_keeps_its_keys_waiting_while_others_go_on() -> None:
    down = True
    handler = Scripted(lambda records: Transient(cause=WaitCause.DATABASE) if down and records[0].offset == 0 else None)
    bench = Bench(handler, max_batch=1)

    await bench.arrive(record(0, b"a"), record(1, b"a"), record(2, b"b"))
    assert handler.batches == [[0], [2]]
    assert bench.runner.scheduler.waiting() == {WaitCause.DATABASE: 1}
    await bench.clock.advance(60)
    assert not bench.ended
    down = False
    await bench.clock.advance(10)

    assert handler.batches[-2:] == [[0], [1]]
    assert bench.watermark() == 3


async def test_a_bad_record_is_found_and_its_neighbours_are_finished_at_once() -> None:
    handler = Scripted(whenever(11, ValueError("text of a message")))
    bench = Bench(handler)

    await bench.arrive(*distinct(16))

    assert bench.runner.finished == 15
    assert [11] in handler.batches
    assert bench.watermark() == 11
    await bench.clock.advance(10)
    assert handler.batches.count([11]) == 5
    assert [(offset, cause.reason) for offset, cause in bench.ended] == [(11, DeadLetterReason.FAILED_REPEATEDLY)]
    assert bench.published == [11]
    assert bench.watermark() == 16


async def test_a_permanent_error_in_a_batch_buries_only_its_record() -> None:
    bench = Bench(Scripted(whenever(2, Permanent("no"))))

    await bench.arrive(*distinct(4))

    assert [offset for offset, _ in bench.ended] == [2]
    assert bench.watermark() == 4
    assert bench.counts.dead == ["permanent"]


async def test_named_bad_records_are_judged_by_themselves_and_the_rest_is_finished() -> None:
    def fails(records: Sequence[Record]) -> Exception | None:
        failures: dict[int, Exception] = {}
        for index, each in enumerate(records):
            if each.offset == 1:
                failures[index] = Permanent("no")
            if each.offset == 2:
                failures[index] = Transient()
        return BadRecords(failures) if failures else None

    handler = Scripted(fails)
    bench = Bench(handler)

    await bench.arrive(*distinct(4))

    assert handler.batches == [[0, 1, 2, 3]]
    assert bench.runner.finished == 3
    assert [offset for offset, _ in bench.ended] == [1]
    assert bench.watermark() == 2


async def test_bad_records_that_were_not_in_the_batch_finish_nothing() -> None:
    bench = Bench(Scripted(lambda records: BadRecords({99: ValueError()})))

    await bench.arrive(*distinct(2))

    assert bench.runner.finished == 0


async def test_an_unknown_type_waits_for_code_that_knows_it() -> None:
    known = False
    handler = Scripted(lambda records: None if known else whenever(0, UnknownRecordType("OfTheFuture"))(records))
    bench = Bench(handler)
    await bench.arrive(*distinct(2))

    await bench.clock.advance(300)
    assert bench.runner.finished == 1
    assert bench.runner.scheduler.waiting() == {WaitCause.UNKNOWN_TYPE: 1}
    known = True
    await bench.clock.advance(10)

    assert bench.watermark() == 2
    assert not bench.ended


async def test_an_unknown_type_is_a_dead_letter_after_ten_minutes() -> None:
    bench = Bench(Scripted(lambda records: UnknownRecordType("OfTheFuture")))
    await bench.arrive(record(0))

    await bench.clock.advance(599)
    assert not bench.ended
    await bench.clock.advance(2)

    assert [cause.reason for _, cause in bench.ended] == [DeadLetterReason.UNKNOWN_RECORD_TYPE]


async def test_a_record_whose_handler_was_cancelled_is_seen_again() -> None:
    handler = Scripted()
    cancelled = False

    async def handle(records: Sequence[Record]) -> None:
        nonlocal cancelled
        await handler(records)
        if not cancelled:
            cancelled = True
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    bench = Bench(handle)

    await bench.arrive(record(0), record(1))
    await bench.clock.advance(1)

    assert handler.batches == [[0], [0], [1]]
    assert bench.watermark() == 2


async def test_a_stray_cancellation_from_inside_is_no_end() -> None:
    handler = Scripted(lambda records: asyncio.CancelledError() if len(handler.batches) == 1 else None)
    bench = Bench(handler)

    await bench.arrive(record(0))
    await bench.clock.advance(1)

    assert bench.watermark() == 1


async def test_a_dead_letter_is_published_once_however_often_ending_its_message_fails() -> None:
    bench = Bench(Scripted(whenever(0, Permanent("no"))))
    bench.burials_fail = [KeyError(), ConnectionError(), KeyError()]

    await bench.arrive(record(0), record(1))
    assert bench.watermark() == 0
    assert bench.runner.scheduler.waiting() == {None: 1}
    await bench.clock.advance(10)

    assert bench.published == [0]
    assert [offset for offset, _ in bench.ended] == [0]
    assert bench.watermark() == 2


async def test_too_many_dead_letters_stop_everything_and_shout() -> None:
    bench = Bench(Scripted(lambda records: Permanent("all of them")), max_batch=1, concurrency=1, limit=10)

    await bench.arrive(*distinct(20))
    await settle()

    assert bench.alarms == 1
    assert len(bench.ended) == 10
    assert bench.watermark() <= 10


async def test_dead_letters_spread_over_time_do_not_stop_the_process() -> None:
    bench = Bench(Scripted(lambda records: Permanent("now and then")), limit=10)

    for offset in range(30):
        await bench.arrive(record(offset))
        await bench.clock.advance(7)

    assert bench.alarms == 0
    assert bench.watermark() == 30


async def test_a_drain_waits_for_what_is_in_hand_and_hands_out_nothing_more() -> None:
    gate, handler = asyncio.Event(), Scripted()

    async def handle(records: Sequence[Record]) -> None:
        await handler(records)
        await gate.wait()

    bench = Bench(handle)
    await bench.arrive(record(0), record(1))
    drain = asyncio.create_task(bench.runner.drain([PLACE], seconds=5))
    await settle()
    assert not drain.done()
    gate.set()

    assert await drain
    assert handler.batches == [[0]]
    assert bench.watermark() == 1


async def test_a_drain_gives_up_when_its_time_is_over() -> None:
    async def handle(records: Sequence[Record]) -> None:
        await asyncio.Event().wait()

    bench = Bench(handle)
    await bench.arrive(record(0))

    assert not await bench.runner.drain([PLACE], seconds=0)
    await bench.runner.stop()
    assert bench.watermark() == 0


async def test_nothing_finished_after_a_revoke_moves_the_next_assignment() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    calls = 0

    async def handle(records: Sequence[Record]) -> None:
        nonlocal calls
        calls += 1
        await gates[calls - 1].wait()

    bench = Bench(handle)
    await bench.arrive(record(0))
    bench.runner.scheduler.revoke([PLACE])
    await bench.arrive(record(0))
    assert calls == 1, "the record is not started beside itself"
    gates[0].set()
    await settle()

    assert calls == 2
    assert bench.watermark() == 0
    gates[1].set()
    await settle()
    assert bench.watermark() == 1


class Kept:
    """A slot handler that settles nothing until the test does."""

    def __init__(self) -> None:
        self.given: dict[int, tuple[Record, Slots]] = {}

    async def __call__(self, records: Sequence[Record], slots: Slots, /) -> None:
        for each in records:
            self.given[each.offset] = (each, slots)

    def finish(self, offset: int, *, hold_key: bool = False) -> None:
        each, slots = self.given[offset]
        slots.finish(each, hold_key=hold_key)

    def release(self, offset: int) -> None:
        each, slots = self.given[offset]
        slots.release(each)

    def fail(self, offset: int, error: BaseException) -> None:
        each, slots = self.given[offset]
        slots.fail(each, error)


async def test_a_slot_handler_finishes_records_one_by_one_after_it_returned() -> None:
    handler = Kept()
    bench = Bench(InSlots(handler, slots=3))

    await bench.arrive(*distinct(5))
    assert sorted(handler.given) == [0, 1, 2]
    handler.finish(1)
    await settle()
    assert sorted(handler.given) == [0, 1, 2, 3]
    handler.finish(0)
    await settle()

    assert bench.watermark() == 2
    assert sorted(handler.given) == [0, 1, 2, 3, 4]


async def test_a_held_key_keeps_its_slot_and_its_followers_but_not_the_offset() -> None:
    handler = Kept()
    bench = Bench(InSlots(handler, slots=2))
    await bench.arrive(record(0), record(1), record(2, b"other"), record(3, b"third"))

    handler.finish(0, hold_key=True)
    handler.finish(2)
    await settle()

    assert sorted(handler.given) == [0, 2, 3]
    assert bench.watermark() == 1
    assert await bench.runner.drain([TopicPartition("topic", 9)], seconds=0)
    handler.release(0)
    await settle()
    assert sorted(handler.given) == [0, 1, 2, 3]


async def test_settling_a_record_twice_counts_once() -> None:
    handler = Kept()
    bench = Bench(InSlots(handler, slots=1))
    await bench.arrive(*distinct(3))

    handler.finish(0)
    handler.finish(0)
    handler.fail(0, ValueError())
    handler.release(0)
    await settle()

    assert sorted(handler.given) == [0, 1]
    assert bench.runner.finished == 1


async def test_a_failed_slot_is_judged_like_a_failed_batch() -> None:
    handler = Kept()
    bench = Bench(InSlots(handler, slots=4))
    await bench.arrive(*distinct(3))

    handler.fail(0, Permanent("no"))
    handler.fail(1, ConnectionError())
    handler.finish(2)
    await settle()

    assert [offset for offset, _ in bench.ended] == [0]
    assert bench.watermark() == 1
    await bench.clock.advance(1)
    handler.finish(1)
    assert bench.watermark() == 3


async def test_what_a_slot_handler_left_unsettled_when_it_raised_is_judged_by_the_error() -> None:
    calls: list[list[int]] = []

    async def handle(records: Sequence[Record], slots: Slots) -> None:
        calls.append([each.offset for each in records])
        slots.finish(records[0])
        if len(calls) == 1:
            raise ConnectionError

    bench = Bench(InSlots(handle, slots=8))
    await bench.arrive(*distinct(2))
    await bench.clock.advance(1)

    assert calls == [[0, 1], [1]]
    assert bench.watermark() == 2


async def test_a_record_of_another_batch_cannot_be_settled() -> None:
    handler = Kept()
    bench = Bench(InSlots(handler, slots=4))
    await bench.arrive(record(0))

    with pytest.raises(BusError):
        handler.given[0][1].finish(record(0))


async def test_an_outage_leaves_batches_whole_and_recovery_finishes_everything() -> None:
    down = True
    handler = Scripted(lambda records: ConnectionError() if down else None)
    bench = Bench(handler, max_batch=8, concurrency=2)
    await bench.arrive(*distinct(16))

    await bench.clock.advance(10)
    assert {len(batch) for batch in handler.batches} == {8}
    down = False
    await bench.clock.advance(10)

    assert bench.watermark() == 16


async def test_one_record_that_only_ever_times_out_does_not_hold_its_batch() -> None:
    handler = Scripted(whenever(3, TimeoutError()))
    bench = Bench(handler)
    await bench.arrive(*distinct(8))

    for offset in range(100, 160):
        await bench.arrive(record(offset, b"%d" % offset))
        await bench.clock.advance(1)

    assert bench.runner.finished == 7 + 60
    assert bench.watermark() == 3
    assert not bench.ended
