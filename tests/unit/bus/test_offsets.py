"""The offset tracker against the simplest model of it: the set of finished offsets."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from switchboard.bus.offsets import OffsetTracker


def test_nothing_may_be_committed_before_the_first_record() -> None:
    assert OffsetTracker().watermark is None


def test_the_watermark_waits_for_the_oldest_unfinished_record() -> None:
    tracker = OffsetTracker()
    for offset in (5, 6, 7):
        tracker.arrive(offset)

    tracker.finish(6)
    tracker.finish(7)

    assert tracker.watermark == 5
    tracker.finish(5)
    assert tracker.watermark == 8


def test_a_gap_in_the_offsets_holds_nothing_back() -> None:
    tracker = OffsetTracker()
    tracker.arrive(3)
    tracker.arrive(9)

    tracker.finish(3)

    assert tracker.watermark == 9
    tracker.finish(9)
    assert tracker.watermark == 10


def test_a_record_seen_again_is_not_counted_twice() -> None:
    tracker = OffsetTracker()
    assert tracker.arrive(1)
    assert not tracker.arrive(1)
    assert not tracker.arrive(0)

    assert tracker.unfinished == 1
    assert tracker.finish(1)
    assert not tracker.finish(1)
    assert tracker.unfinished == 0


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_in_any_order_of_completion_nothing_unfinished_is_passed(steps: list[int], random: object) -> None:
    offsets, at = [], 0
    for step in steps:
        at += step
        offsets.append(at)
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.arrive(offset)
    order = list(offsets)
    random.shuffle(order)  # type: ignore[attr-defined]
    unfinished = set(offsets)

    for offset in order:
        tracker.finish(offset)
        unfinished.discard(offset)

        assert tracker.watermark == min(unfinished, default=offsets[-1] + 1)
        assert tracker.unfinished == len(unfinished)


@dataclass
class Broker:
    """What a broker remembers of one partition, and which records were ever finished."""

    end: int = 0
    committed: int = 0
    finished: set[int] = field(default_factory=set)


class Assignments(RuleBasedStateMachine):
    """A partition through many assignments: work in any order, commits now and then, a revoke at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.tracker = OffsetTracker()
        self.position = 0
        self.in_hand: set[int] = set()
        self.ghosts: list[tuple[OffsetTracker, int]] = []

    @rule(count=st.integers(1, 5))
    def produce(self, count: int) -> None:
        self.broker.end += count

    @precondition(lambda self: self.position < self.broker.end)
    @rule(count=st.integers(1, 5))
    def poll(self, count: int) -> None:
        for offset in range(self.position, min(self.position + count, self.broker.end)):
            assert self.tracker.arrive(offset)
            self.in_hand.add(offset)
            self.position = offset + 1

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.in_hand)))
        self.in_hand.discard(offset)
        assert self.tracker.finish(offset)
        self.broker.finished.add(offset)

    @rule()
    def commit(self) -> None:
        if self.tracker.watermark is not None:
            self.broker.committed = self.tracker.watermark

    @rule(commits=st.booleans())
    def revoke(self, commits: bool) -> None:
        if commits:
            self.commit()
        self.ghosts += [(self.tracker, offset) for offset in self.in_hand]
        self.tracker, self.in_hand, self.position = OffsetTracker(), set(), self.broker.committed

    @precondition(lambda self: self.ghosts)
    @rule()
    def finish_after_the_revoke(self) -> None:
        tracker, offset = self.ghosts.pop()
        before = self.tracker.watermark
        tracker.finish(offset)
        assert self.tracker.watermark == before

    @invariant()
    def nothing_unfinished_is_committed_past(self) -> None:
        assert set(range(self.broker.committed)) <= self.broker.finished


TestAssignments = Assignments.TestCase
TestAssignments.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
