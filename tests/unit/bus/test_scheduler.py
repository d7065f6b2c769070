"""What the scheduler hands out: one record of a key at a time, in order, whatever happens in between."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.bus.fakes import PLACE, record

from switchboard.bus import Record, TopicPartition, WaitCause
from switchboard.bus.scheduler import Scheduler, Ticket


def offsets(tickets: list[Ticket]) -> list[int]:
    return [ticket.record.offset for ticket in tickets]


def test_a_batch_holds_the_oldest_record_of_each_key() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0, b"a"), record(1, b"a"), record(2, b"b")], now=0)

    assert offsets(scheduler.take(10, now=0)) == [0, 2]
    assert scheduler.take(10, now=0) == []


def test_the_next_record_of_a_key_starts_when_the_first_is_finished() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0), record(1)], now=0)
    first = scheduler.take(10, now=0)

    scheduler.finish(first[0])

    assert offsets(scheduler.take(10, now=0)) == [1]


def test_records_without_a_key_are_in_no_order() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0, None), record(1, None)], now=0)

    assert offsets(scheduler.take(10, now=0)) == [0, 1]


def test_the_same_key_in_two_partitions_is_two_keys() -> None:
    scheduler, other = Scheduler(), TopicPartition("topic", 1)
    scheduler.arrive(PLACE, [record(0)], now=0)
    scheduler.arrive(other, [record(0, place=other)], now=0)

    assert len(scheduler.take(10, now=0)) == 2


def test_a_set_aside_record_holds_its_key_until_due_and_others_go_on() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0, b"a"), record(1, b"a"), record(2, b"b")], now=0)
    taken = scheduler.take(1, now=0)

    scheduler.set_aside(taken, due=5.0, cause=WaitCause.DATABASE)

    assert scheduler.next_due() == 5.0
    assert scheduler.waiting() == {WaitCause.DATABASE: 1}
    assert offsets(scheduler.take(10, now=4.9)) == [2]
    assert scheduler.take(10, now=4.9) == []
    assert offsets(scheduler.take(10, now=5.0) or scheduler.take(10, now=5.0)) == [0]


def test_set_aside_and_fresh_records_take_turns() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(offset, None) for offset in range(4)], now=0)
    for ticket in scheduler.take(2, now=0):
        scheduler.set_aside([ticket], due=0.0, cause=None)

    firsts = {offsets(scheduler.take(1, now=0))[0] for _ in range(2)}

    assert len(firsts & {0, 1}) == 1


def test_a_held_key_lets_the_offset_pass_but_not_the_next_record() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0), record(1)], now=0)
    (first,) = scheduler.take(10, now=0)

    scheduler.finish(first, hold_key=True)

    assert scheduler.watermarks() == {PLACE: 1}
    assert scheduler.take(10, now=0) == []
    scheduler.release(first)
    assert offsets(scheduler.take(10, now=0)) == [1]


def test_a_held_key_stays_held_when_the_partition_comes_back() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0)], now=0)
    (first,) = scheduler.take(10, now=0)
    scheduler.finish(first, hold_key=True)
    scheduler.revoke([PLACE])

    scheduler.arrive(PLACE, [record(1)], now=0)

    assert scheduler.take(10, now=0) == []
    scheduler.release(first)
    assert offsets(scheduler.take(10, now=0)) == [1]


def test_a_record_in_hand_at_a_revoke_does_not_start_a_second_time_beside_itself() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0)], now=0)
    (ghost,) = scheduler.take(10, now=0)
    scheduler.revoke([PLACE])
    scheduler.arrive(PLACE, [record(0)], now=0)

    assert scheduler.take(10, now=0) == []
    scheduler.finish(ghost)
    assert offsets(scheduler.take(10, now=0)) == [0]


def test_a_result_of_an_older_assignment_moves_no_watermark() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0), record(1, b"other")], now=0)
    ghosts = scheduler.take(10, now=0)
    scheduler.revoke([PLACE])
    scheduler.arrive(PLACE, [record(0), record(1, b"other")], now=0)

    for ghost in ghosts:
        assert not scheduler.finish(ghost)

    assert scheduler.watermarks() == {PLACE: 0}


def test_nothing_of_a_partition_being_revoked_is_handed_out() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0, b"a"), record(1, b"b")], now=0)
    scheduler.set_aside(scheduler.take(1, now=0), due=0.0, cause=None)

    scheduler.begin_revoke([PLACE])

    assert scheduler.take(10, now=0) == []
    assert scheduler.take(10, now=0) == []


def test_the_age_of_the_oldest_unfinished_record_is_known() -> None:
    scheduler = Scheduler()
    scheduler.arrive(PLACE, [record(0)], now=1.0)
    scheduler.arrive(PLACE, [record(1, b"other")], now=2.0)
    first, _ = scheduler.take(10, now=3.0)

    assert scheduler.oldest_arrival() == 1.0
    scheduler.finish(first)
    assert scheduler.oldest_arrival() == 2.0


class Model(RuleBasedStateMachine):
    """Two partitions, few keys, and every operation at any moment, against what the promises say."""

    places = (TopicPartition("topic", 0), TopicPartition("topic", 1))

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 0.0
        self.logs: dict[TopicPartition, list[Record]] = defaultdict(list)
        self.committed: dict[TopicPartition, int] = defaultdict(int)
        self.position: dict[TopicPartition, int] = defaultdict(int)
        self.finished: set[tuple[TopicPartition, int]] = set()
        self.in_hand: list[tuple[Ticket, bool]] = []
        self.held: list[Ticket] = []

    @rule(which=st.integers(0, 1), keys=st.lists(st.sampled_from([b"a", b"b", b"c", None]), min_size=1, max_size=6))
    def arrive(self, which: int, keys: list[bytes | None]) -> None:
        place = self.places[which]
        log = self.logs[place]
        log += [record(len(log) + index, key, place=place) for index, key in enumerate(keys)]
        fresh = log[self.position[place] :]
        self.scheduler.arrive(place, fresh, self.now)
        self.position[place] = len(log)

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        busy = {(_place(ticket), ticket.record.key) for ticket, _ in self.in_hand}
        busy |= {(_place(ticket), ticket.record.key) for ticket in self.held}
        taken = self.scheduler.take(limit, self.now)
        assert len(taken) <= limit
        for ticket in taken:
            place, key = _place(ticket), ticket.record.key
            if key is not None:
                assert (place, key) not in busy
                busy.add((place, key))
                older = [r for r in self.logs[place][: ticket.record.offset] if r.key == key]
                assert all((place, r.offset) in self.finished for r in older)
            self.in_hand.append((ticket, True))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), hold=st.booleans())
    def finish(self, data: st.DataObject, hold: bool) -> None:
        ticket, valid = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        assert self.scheduler.finish(ticket, hold_key=hold) == valid
        self.finished.add((_place(ticket), ticket.record.offset))
        if hold:
            self.held.append(ticket)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.scheduler.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), wait=st.floats(0, 3))
    def set_aside(self, data: st.DataObject, wait: float) -> None:
        ticket, _ = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        self.scheduler.set_aside([ticket], self.now + wait, WaitCause.BACK_OFF)

    @rule(seconds=st.floats(0.5, 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 1))
    def revoke(self, which: int) -> None:
        place = self.places[which]
        self.committed[place] = self.scheduler.watermarks().get(place, self.committed[place])
        self.scheduler.begin_revoke([place])
        self.scheduler.revoke([place])
        self.position[place] = self.committed[place]
        self.in_hand = [(ticket, valid and _place(ticket) != place) for ticket, valid in self.in_hand]

    @invariant()
    def no_watermark_passes_an_unfinished_record(self) -> None:
        for place, watermark in self.scheduler.watermarks().items():
            assert all((place, r.offset) in self.finished for r in self.logs[place][:watermark])

    def teardown(self) -> None:
        """Whatever happened: let it run on, and every record is finished and every offset passes."""
        for ticket, _ in self.in_hand:
            self.scheduler.finish(ticket)
            self.finished.add((_place(ticket), ticket.record.offset))
        for ticket in self.held:
            self.scheduler.release(ticket)
        for place, log in self.logs.items():
            self.scheduler.arrive(place, log[self.position[place] :], self.now)
        self.now += 100
        while taken := self.scheduler.take(3, self.now) or self.scheduler.take(3, self.now):
            for ticket in taken:
                self.scheduler.finish(ticket)
                self.finished.add((_place(ticket), ticket.record.offset))
        for place, log in self.logs.items():
            assert {offset for where, offset in self.finished if where == place} == set(range(len(log)))
            assert self.scheduler.unfinished(place) == 0


def _place(ticket: Ticket) -> TopicPartition:
    return TopicPartition(ticket.record.topic, ticket.record.partition)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
