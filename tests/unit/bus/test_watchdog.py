"""When the watchdog ends the process, and when it leaves it alone."""

import threading

import pytest
from msgspec.structs import replace

from switchboard.bus.watchdog import EXIT_STALLED, Pulse, Watchdog

HEALTHY = Pulse(name="router.attempts", polls=1)


class Patient:
    """Something to watch whose pulse the test sets."""

    def __init__(self, pulse: Pulse = HEALTHY) -> None:
        self.pulse = pulse


class Watched:
    """A watchdog on a hand-moved clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.patient = Patient()
        self.dog = Watchdog([self.patient], monotonic=lambda: self.now, exit=lambda code: None)

    def pass_time(self, seconds: int, **changes: object) -> str | None:
        """One check a second; the consumer polls on unless told otherwise."""
        for _ in range(seconds):
            self.now += 1
            polls = self.patient.pulse.polls + 1
            self.patient.pulse = replace(self.patient.pulse, **{"polls": polls, **changes})
            if (stall := self.dog.check()) is not None:
                return stall
        return None


def test_a_consumer_that_polls_and_has_nothing_to_do_is_live() -> None:
    assert Watched().pass_time(1_000) is None


def test_no_poll_for_a_minute_is_a_stall() -> None:
    watched = Watched()

    assert watched.pass_time(59, polls=1) is None
    assert watched.pass_time(1, polls=1) == "router.attempts: no poll"


def test_a_record_in_hand_for_a_minute_is_a_stall() -> None:
    watched = Watched()

    stall = watched.pass_time(62, oldest=("topic", 0, 7, 3.0))

    assert stall == "router.attempts: a record in hand for too long"


def test_other_records_in_hand_each_second_are_work() -> None:
    watched = Watched()
    for offset in range(300):
        assert watched.pass_time(1, oldest=("topic", 0, offset, float(offset))) is None


def test_lag_that_does_not_move_in_one_partition_is_a_stall_whatever_the_others_do() -> None:
    watched = Watched()
    stall = None
    for second in range(62):
        stall = stall or watched.pass_time(1, behind={("topic", 0): second, ("topic", 1): 7})

    assert stall == "router.attempts: lag without movement"


@pytest.mark.parametrize("excuse", [{"waits_for_a_cause": True}, {"broker_away": True}])
def test_lag_and_hands_are_excused_while_a_record_waits_for_a_named_cause(excuse: dict[str, bool]) -> None:
    watched = Watched()
    signs = {"behind": {("topic", 0): 7}, "oldest": ("topic", 0, 7, 3.0)}

    assert watched.pass_time(500, **signs, **excuse) is None
    assert watched.pass_time(70, **signs, **dict.fromkeys(excuse, False)) is not None


def test_a_waiting_record_does_not_excuse_a_consumer_that_no_longer_polls() -> None:
    assert Watched().pass_time(61, polls=1, waits_for_a_cause=True) == "router.attempts: no poll"


def test_a_process_that_was_frozen_gets_its_time_again() -> None:
    watched = Watched()
    watched.pass_time(30, polls=1)
    watched.now += 3_600

    assert watched.pass_time(25, polls=1) is None
    assert watched.pass_time(10, polls=1) is not None


def test_a_stall_ends_the_process_with_a_code() -> None:
    codes: list[int] = []
    ended = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        ended.set()

    dog = Watchdog([Patient()], limit_seconds=0.0, interval_seconds=0.001, exit=leave)
    assert dog.is_live
    dog.start()
    assert ended.wait(10)
    dog.stop()

    assert codes == [EXIT_STALLED]
    assert not dog.is_live
