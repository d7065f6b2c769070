"""What the consumption policy promises, on the real broker."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from faststream import FastStream
from tests.contract.bus.conftest import Bus, QuickClock, Seen, numbered

from switchboard.bus import (
    DeadLetterReason,
    InSlots,
    Outgoing,
    Permanent,
    Record,
    Slots,
    Transient,
    WaitCause,
    Watchdog,
    decode_dead_letter,
)
from switchboard.bus.watchdog import EXIT_STALLED, EXIT_TOO_MANY_DEAD_LETTERS
from switchboard.testing import wait_until


async def test_every_record_is_handled_once_in_the_order_of_its_key_and_committed(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    await bus.producer.publish(numbered(topic, 500))

    consumer = await bus.consume(topic, seen)
    await wait_until(lambda: consumer.state.finished == 500)
    await consumer.stop()

    assert sorted(int(value) for value in seen.values) == list(range(500))
    assert all(numbers == sorted(numbers) for numbers in seen.by_key().values())
    assert await bus.committed(topic) == await bus.ends(topic)


async def test_a_new_group_begins_with_the_earliest_record(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    await bus.producer.publish(numbered(topic, 3))

    await bus.consume(topic, seen)
    await bus.producer.publish(numbered(topic, 1, start=3))

    await wait_until(lambda: len(seen.records) == 4)


async def test_headers_key_and_time_arrive_as_sent(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    await bus.producer.publish([Outgoing(topic, None, b"", {"type": b"Fact"}), Outgoing(topic, b"k", b"v")])

    await bus.consume(topic, seen)
    await wait_until(lambda: len(seen.records) == 2)

    by_key = {record.key: record for record in seen.records}
    assert (by_key[None].value, by_key[None].headers) == (b"", {"type": b"Fact"})
    assert (by_key[b"k"].value, by_key[b"k"].headers) == (b"v", {})
    assert by_key[b"k"].timestamp_ms > 1_600_000_000_000


async def test_a_slow_key_does_not_hold_back_its_partition(bus: Bus) -> None:
    topic, seen, gate = await bus.topic(partitions=1), Seen(), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        if records[0].key == b"slow":
            await gate.wait()
        await seen(records)

    messages = [Outgoing(topic, b"slow", b"0"), Outgoing(topic, b"slow", b"1"), *numbered(topic, 50, start=2)]
    await bus.producer.publish(messages)
    consumer = await bus.consume(topic, handle, max_batch=1)

    await wait_until(lambda: len(seen.records) == 50)
    assert sum((await bus.committed(topic)).values()) == 0
    gate.set()
    await wait_until(lambda: consumer.state.finished == 52)
    assert seen.by_key()[b"slow"] == [0, 1]


async def test_a_record_whose_handler_was_cancelled_is_seen_again(bus: Bus) -> None:
    topic, seen, cancelled = await bus.topic(), Seen(), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        if not cancelled.is_set():
            cancelled.set()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)
        await seen(records)

    await bus.producer.publish(numbered(topic, 5, keys=1))
    consumer = await bus.consume(topic, handle)

    await wait_until(lambda: consumer.state.finished == 5)
    assert seen.by_key()[b"key-0"] == [0, 1, 2, 3, 4]
    assert not bus.exits


async def test_what_is_not_finished_at_a_crash_is_seen_again(bus: Bus) -> None:
    topic, seen = await bus.topic(partitions=1), Seen()
    hangs = asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        if any(record.value == b"2" for record in records):
            hangs.set()
            await asyncio.Event().wait()

    await bus.producer.publish(numbered(topic, 5, keys=5))
    settings = bus.settings.model_copy(update={"drain_seconds": 0.0})
    first = await bus.consume(topic, handle, max_batch=1, settings=settings)
    await wait_until(lambda: hangs.is_set() and first.state.finished == 4)
    await first.stop()

    assert await bus.committed(topic) == {0: 2}
    await bus.consume(topic, seen)
    await wait_until(lambda: len(seen.records) == 3)
    assert seen.values == [b"2", b"3", b"4"]


async def test_a_poison_record_becomes_a_dead_letter_and_its_neighbours_are_unharmed(bus: Bus) -> None:
    topic, seen = await bus.topic(partitions=1), Seen()
    at_the_end: list[int] = []

    async def handle(records: Sequence[Record]) -> None:
        if any(record.value == b"poison" for record in records):
            raise ValueError("the text of a message")
        await seen(records)

    async def on_dead_letter(record: Record, cause: object) -> None:
        at_the_end.append(sum((await bus.committed(topic)).values()))

    messages = numbered(topic, 40, keys=40)
    messages[20] = Outgoing(topic, b"bad", b"poison", {"type": b"Fact", "message_id": b"01ABC"})
    await bus.producer.publish(messages)
    consumer = await bus.consume(topic, handle, on_dead_letter=on_dead_letter, clock=QuickClock())

    await wait_until(lambda: consumer.state.finished == 40, 15)
    assert len(seen.records) == 39
    assert len(at_the_end) == 1
    assert at_the_end[0] <= 20, "the offset passed before the message ended"
    (kept,) = await bus.everything(bus.settings.dead_letter_topic)
    letter = decode_dead_letter(kept.value)
    assert kept.key == b"bad"
    assert dict(kept.headers) == {"type": b"DeadLetter", "message_id": b"01ABC"}
    assert (letter.topic, letter.offset, letter.payload) == (topic, 20, b"poison")
    assert (letter.reason, letter.error, letter.failures) == (DeadLetterReason.FAILED_REPEATEDLY, "ValueError", 5)
    assert letter.original() == messages[20]


async def test_the_largest_record_still_fits_into_a_dead_letter(bus: Bus) -> None:
    topic = await bus.topic()

    async def handle(records: Sequence[Record]) -> None:
        raise Permanent("no")

    payload = b"x" * (bus.settings.max_message_bytes - 200)
    await bus.producer.publish([Outgoing(topic, b"k", payload)])
    consumer = await bus.consume(topic, handle)

    await wait_until(lambda: consumer.state.finished == 1)
    (kept,) = await bus.everything(bus.settings.dead_letter_topic)
    assert decode_dead_letter(kept.value).payload == payload


async def test_too_many_dead_letters_end_the_process(bus: Bus) -> None:
    topic = await bus.topic()

    async def handle(records: Sequence[Record]) -> None:
        raise Permanent("everything")

    await bus.producer.publish(numbered(topic, 60, keys=60))
    settings = bus.settings.model_copy(update={"dead_letter_limit": 20})
    consumer = await bus.consume(topic, handle, settings=settings)

    await wait_until(lambda: bus.exits)
    assert bus.exits == [EXIT_TOO_MANY_DEAD_LETTERS]
    await consumer.stop()
    assert len(bus.dead) < 60
    assert sum((await bus.committed(topic)).values()) <= len(bus.dead)


async def test_a_transient_error_is_retried_in_place_and_said_to_be_waited_for(bus: Bus) -> None:
    topic, seen, down = await bus.topic(), Seen(), True

    async def handle(records: Sequence[Record]) -> None:
        if down:
            raise Transient(cause=WaitCause.DATABASE)
        await seen(records)

    await bus.producer.publish(numbered(topic, 20))
    consumer = await bus.consume(topic, handle, clock=QuickClock())
    await wait_until(lambda: consumer.state.waiting.get("database"))
    down = False
    await wait_until(lambda: consumer.state.finished == 20)

    assert all(numbers == sorted(numbers) for numbers in seen.by_key().values())
    assert not bus.dead


async def test_a_conflict_that_never_ends_is_no_excuse_to_the_watchdog(bus: Bus) -> None:
    topic, cause, tries = await bus.topic(), WaitCause.CONFLICT, 0
    pulses: list[bool] = []

    async def handle(records: Sequence[Record]) -> None:
        nonlocal tries
        tries += 1
        raise Transient(cause=cause)

    def is_excused() -> bool:
        pulses.append(consumer.pulse.waits_for_a_cause)
        return pulses[-1]

    await bus.producer.publish(numbered(topic, 1))
    consumer = await bus.consume(topic, handle, clock=QuickClock())
    await wait_until(lambda: is_excused() or tries >= 8)
    assert not any(pulses)

    cause = WaitCause.DATABASE
    await wait_until(is_excused)


async def test_a_full_partition_is_left_out_and_the_others_are_read(bus: Bus) -> None:
    topic, seen, gate = await bus.topic(partitions=2), Seen(), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        if records[0].partition == full:
            await gate.wait()
        await seen(records)

    messages = numbered(topic, 400, keys=200)
    await bus.producer.publish(messages)
    full = 0
    ends = await bus.ends(topic)
    consumer = await bus.consume(topic, handle, max_batch=1, max_in_flight_per_partition=40, concurrency=41)

    await wait_until(lambda: len(seen.records) == ends[1])
    assert 0 < consumer.state.in_flight <= 40
    gate.set()
    await wait_until(lambda: len(seen.records) == 400)


async def test_members_join_and_leave_under_load_and_nothing_is_lost_or_doubled(bus: Bus) -> None:
    topic, seen = await bus.topic(partitions=6), Seen()
    sent, going = 0, True

    async def load() -> None:
        nonlocal sent
        while going:
            await bus.producer.publish(numbered(topic, 40, keys=60, start=sent))
            sent += 40
            await asyncio.sleep(0.005)

    first = await bus.consume(topic, seen)
    loading = asyncio.create_task(load())
    await wait_until(lambda: first.state.finished > 200)
    second = await bus.consume(topic, seen)
    await wait_until(lambda: second.state.finished > 200, 30)
    third = await bus.consume(topic, seen)
    await wait_until(lambda: third.state.finished > 100, 30)
    await first.stop()
    await wait_until(lambda: second.state.partitions + third.state.partitions == 6, 30)
    before = second.state.finished
    await wait_until(lambda: second.state.finished > before + 200)
    going = False
    await loading
    await wait_until(lambda: len(seen.records) >= sent)
    await second.stop()
    await third.stop()

    assert sorted(int(value) for value in seen.values) == list(range(sent))
    assert all(numbers == sorted(numbers) for numbers in seen.by_key().values())
    assert await bus.committed(topic) == await bus.ends(topic)
    assert not bus.exits


async def test_a_hung_handler_does_not_keep_a_rebalance_and_its_late_result_moves_nothing(bus: Bus) -> None:
    topic, seen, gate, hung = await bus.topic(partitions=2), Seen(), asyncio.Event(), asyncio.Event()

    async def hangs(records: Sequence[Record]) -> None:
        hung.set()
        await gate.wait()

    settings = bus.settings.model_copy(update={"drain_seconds": 0.1})
    await bus.producer.publish(numbered(topic, 20, keys=20))
    first = await bus.consume(topic, hangs, settings=settings)
    await hung.wait()
    await bus.consume(topic, seen)
    await wait_until(lambda: len(seen.records) > 0)
    gate.set()
    await wait_until(lambda: first.state.in_flight == 0)

    await wait_until(lambda: first.state.finished + len(seen.records) == 20)
    assert await wait_until(lambda: _all_committed(bus, topic))


async def _all_committed(bus: Bus, topic: str) -> bool:
    return await bus.committed(topic) == await bus.ends(topic)


async def test_held_keys_hold_no_partition(bus: Bus) -> None:
    topic, seen = await bus.topic(partitions=2), Seen()
    begun: list[tuple[Record, Slots]] = []

    async def begins(records: Sequence[Record], slots: Slots) -> None:
        for record in records:
            slots.finish(record, hold_key=True)
            begun.append((record, slots))

    await bus.producer.publish(numbered(topic, 20, keys=10))
    first = await bus.consume(topic, InSlots(begins, slots=100))
    await wait_until(lambda: len(begun) == 10)
    await bus.consume(topic, seen)

    await wait_until(lambda: len(seen.records) > 0)
    assert all(int(record.value) >= 10 for record in seen.records), "what was finished is not seen again"
    held = list(begun)
    for record, slots in held:
        slots.release(record)
    await wait_until(lambda: first.state.finished + len(seen.records) == 20)


async def test_slots_bound_what_a_handler_has_and_one_slow_call_holds_only_its_slot(bus: Bus) -> None:
    topic, done = await bus.topic(), list[Record]()
    kept: list[tuple[Record, Slots]] = []
    most = 0

    async def handle(records: Sequence[Record], slots: Slots) -> None:
        nonlocal most
        for record in records:
            if record.value == b"0":
                kept.append((record, slots))
            else:
                done.append(record)
                slots.finish(record)
        most = max(most, consumer.state.in_hand)

    consumer = bus.consumer(topic, InSlots(handle, slots=4))
    await bus.producer.publish(numbered(topic, 100, keys=100))
    await consumer.start()

    await wait_until(lambda: len(done) == 99)
    assert most <= 4
    record, slots = kept[0]
    slots.finish(record)
    await wait_until(lambda: consumer.state.finished == 100)


@pytest.mark.parametrize("error", [CommitFailedError, IllegalStateError])
async def test_a_commit_after_a_rebalance_ends_nothing_and_loses_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    topic, seen, failures = await bus.topic(), Seen(), 0
    consumer = await bus.consume(topic, seen)
    assert consumer._kafka is not None
    commit = consumer._kafka.commit

    async def fails_twice(offsets: object) -> None:
        nonlocal failures
        assert "broker" not in consumer.state.waiting, "the broker has answered"
        if failures < 2:
            failures += 1
            raise error("the group has rebalanced")
        await commit(offsets)

    monkeypatch.setattr(consumer._kafka, "commit", fails_twice)
    await bus.producer.publish(numbered(topic, 30))

    assert await wait_until(lambda: _all_committed(bus, topic))
    assert failures == 2
    assert not bus.exits


async def test_a_commit_that_succeeds_and_still_raises_is_made_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, seen, calls = await bus.topic(), Seen(), 0
    consumer = await bus.consume(topic, seen)
    assert consumer._kafka is not None
    commit = consumer._kafka.commit

    async def times_out_once(offsets: object) -> None:
        nonlocal calls
        calls += 1
        await commit(offsets)
        if calls == 1:
            raise TimeoutError

    monkeypatch.setattr(consumer._kafka, "commit", times_out_once)
    await bus.producer.publish(numbered(topic, 5))

    await wait_until(lambda: calls == 2)
    assert await wait_until(lambda: _all_committed(bus, topic))
    assert len(seen.records) == 5


async def test_records_that_come_before_the_assignment_is_told_are_not_lost(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen, told, gate = await bus.topic(), Seen(), asyncio.Event(), asyncio.Event()
    await bus.producer.publish(numbered(topic, 10))
    consumer = bus.consumer(topic, seen)

    async def late(assigned: object) -> None:
        told.set()
        await gate.wait()

    monkeypatch.setattr(consumer, "on_partitions_assigned", late)
    await consumer.start()
    await told.wait()
    await wait_until(lambda: len(seen.records) == 10)
    gate.set()

    assert await wait_until(lambda: _all_committed(bus, topic))


async def test_stop_drains_and_commits_although_no_revoke_is_ever_told(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen, gate, begun = await bus.topic(), Seen(), asyncio.Event(), asyncio.Event()
    revoked: list[object] = []

    async def handle(records: Sequence[Record]) -> None:
        begun.set()
        await gate.wait()
        await seen(records)

    settings = bus.settings.model_copy(update={"commit_interval_seconds": 3_600.0})
    consumer = bus.consumer(topic, handle, settings=settings)
    monkeypatch.setattr(consumer, "on_partitions_revoked", _remember(revoked))
    await consumer.start()
    revoked.clear()
    await bus.producer.publish(numbered(topic, 3, keys=3))
    await begun.wait()
    stopping = asyncio.create_task(consumer.stop())
    gate.set()
    await stopping

    assert not revoked
    assert sum((await bus.committed(topic)).values()) == len(seen.records) > 0


def _remember(calls: list[object]) -> object:
    async def remember(places: object) -> None:
        calls.append(places)

    return remember


async def test_a_thousand_finished_records_bring_the_commit_forward(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    settings = bus.settings.model_copy(update={"commit_interval_seconds": 3_600.0})
    await bus.consume(topic, seen, settings=settings)

    await bus.producer.publish(numbered(topic, 999))
    await wait_until(lambda: len(seen.records) == 999)
    assert sum((await bus.committed(topic)).values()) == 0
    await bus.producer.publish(numbered(topic, 1))

    async def committed() -> bool:
        return sum((await bus.committed(topic)).values()) == 1_000

    assert await wait_until(committed)


async def test_a_static_member_takes_up_its_partitions_without_a_rebalance(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen = await bus.topic(partitions=4), Seen()
    settings = bus.settings.model_copy(update={"member_ordinal": 0})
    other = await bus.consume(topic, seen, member="other-1")
    first = await bus.consume(topic, seen, settings=settings)
    await wait_until(lambda: first.state.partitions == other.state.partitions == 2)
    revokes: list[object] = []
    forward = other.on_partitions_revoked

    async def on_partitions_revoked(places: Iterable[KafkaPartition]) -> None:
        revokes.append(places)
        await forward(places)

    monkeypatch.setattr(other, "on_partitions_revoked", on_partitions_revoked)
    await first.stop()
    await bus.producer.publish(numbered(topic, 40, keys=40))
    again = await bus.consume(topic, seen, settings=settings)
    await wait_until(lambda: len(seen.records) == 40)

    assert again.state.finished > 0
    assert not revokes


async def test_a_fetcher_that_died_in_silence_ends_the_process(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    settings = bus.settings.model_copy(update={"probe_interval_seconds": 0.05})
    consumer = await bus.consume(topic, seen, settings=settings)
    await bus.producer.publish(numbered(topic, 10))
    await wait_until(lambda: len(seen.records) == 10)
    assert consumer._kafka is not None
    fetcher = consumer._kafka._fetcher
    fetcher._fetch_task.cancel()
    await asyncio.wait([fetcher._fetch_task, *fetcher._pending_tasks])
    ended: list[int] = []
    dog = Watchdog([consumer], limit_seconds=1.0, interval_seconds=0.05, exit=ended.append)
    dog.start()
    await bus.producer.publish(numbered(topic, 10))

    await wait_until(lambda: ended)
    dog.stop()
    assert ended == [EXIT_STALLED]
    assert consumer.state.lag == 10


async def test_a_task_of_the_consumer_that_ends_ends_the_process(bus: Bus) -> None:
    topic, seen = await bus.topic(), Seen()
    consumer = await bus.consume(topic, seen)
    assert consumer._poller is not None
    consumer._poller.cancel()

    await wait_until(lambda: bus.exits)


async def test_the_state_tells_lag_and_what_is_in_flight(bus: Bus) -> None:
    topic, gate = await bus.topic(partitions=1), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        await gate.wait()

    settings = bus.settings.model_copy(update={"probe_interval_seconds": 0.05})
    await bus.producer.publish(numbered(topic, 30, keys=30))
    consumer = await bus.consume(topic, handle, settings=settings)

    await wait_until(lambda: consumer.state.lag == 30)
    state = consumer.state
    assert (state.in_flight, state.in_hand, state.partitions, state.finished) == (30, 30, 1, 0)
    assert state.oldest_in_flight_seconds > 0
    gate.set()
    await wait_until(lambda: consumer.state.lag == 0)


async def test_partitions_read_by_hand_are_those_of_the_assignment(bus: Bus) -> None:
    topic, seen = await bus.topic(partitions=2), Seen()
    consumer = await bus.consume(topic, seen)
    assert consumer._kafka is not None

    assert consumer._kafka.assignment() == {KafkaPartition(topic, 0), KafkaPartition(topic, 1)}


async def test_faststreams_lifecycle_starts_it_last_and_drains_it_first(bus: Bus) -> None:
    topic, seen, order = await bus.topic(), Seen(), list[str]()
    consumer = bus.consumer(topic, seen)

    async def what_the_handler_needs() -> None:
        order.append("ready" if consumer.state.partitions == 0 else "late")

    app = FastStream(
        consumer.broker,
        on_startup=[what_the_handler_needs],
        after_startup=[consumer.start],
        on_shutdown=[consumer.stop],
        logger=None,
    )
    await app.start()
    await bus.producer.publish(numbered(topic, 10))
    await wait_until(lambda: len(seen.records) == 10)
    await app.stop()

    assert order == ["ready"]
    assert await bus.committed(topic) == await bus.ends(topic)
