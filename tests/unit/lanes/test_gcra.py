"""Pacing: never above the limit in any second, nearly all of it over ten."""

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchboard.lanes.gcra import AHEAD_US, free_slots, interval_ns, take

SECOND_US = 1_000_000

rates = st.one_of(st.integers(1, 20_000), st.floats(0.1, 20_000, allow_nan=False))


def take_all(rate: float, looks_us: list[int], wanted: list[int]) -> list[int]:
    """The slots of someone who looks at these moments and each time wants that many, at most 100 ms ahead."""
    interval = interval_ns(rate)
    tat_us, slots = 0, []
    for now_us, number in zip(looks_us, wanted, strict=True):
        for _ in range(min(number, free_slots(tat_us, interval, now_us))):
            slot_us, tat_us = take(tat_us, interval, 1, now_us)
            slots.append(slot_us)
    return slots


@given(rates, st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 400)), max_size=60))
def test_no_second_holds_more_slots_than_the_rate(rate: float, looks: list[tuple[int, int]]) -> None:
    moments, now_us = [], 0
    for pause_us, _ in looks:
        now_us += pause_us
        moments.append(now_us)

    slots = take_all(rate, moments, [number for _, number in looks])

    assert slots == sorted(slots)
    for place, slot_us in enumerate(slots):
        assert bisect_left(slots, slot_us + SECOND_US) - place <= ceil(rate)


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 5_000), st.integers(1, 50_000))
def test_who_looks_often_enough_uses_99_percent_over_ten_seconds(rate: int, every_us: int) -> None:
    looks = list(range(0, 10 * SECOND_US, every_us))[:2000]
    span_us = looks[-1] + every_us

    slots = take_all(rate, looks, [10_000] * len(looks))

    assert sum(slot_us < span_us for slot_us in slots) >= 0.99 * rate * span_us / SECOND_US - 1


@given(rates, st.integers(0, 10**9), st.integers(0, 10**9))
def test_free_slots_are_exactly_those_that_can_be_taken(rate: float, tat_us: int, now_us: int) -> None:
    interval = interval_ns(rate)
    taken, next_us = 0, tat_us
    while True:
        slot_us, after_us = take(next_us, interval, 1, now_us)
        if slot_us >= now_us + AHEAD_US:
            break
        taken, next_us = taken + 1, after_us

    # Slots are rounded up to whole microseconds one by one: they may be a little fewer than the exact count.
    assert 0 <= free_slots(tat_us, interval, now_us) - taken <= max(1, taken // 20)


@pytest.mark.parametrize(
    ("tat_us", "units", "not_before_us", "slot_us", "next_us"),
    [
        (0, 1, 1_000, 1_000, 51_000),  # idle: the past is lost
        (2_000, 1, 1_000, 2_000, 52_000),  # ahead: in line behind the last one
        (2_000, 3, 1_000, 2_000, 152_000),  # three units take three places
    ],
)
def test_a_slot_is_the_later_of_now_and_the_last_ones_end(
    tat_us: int, units: int, not_before_us: int, slot_us: int, next_us: int
) -> None:
    assert take(tat_us, interval_ns(20), units, not_before_us) == (slot_us, next_us)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_lets_nothing_through_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="lets nothing through"):
        interval_ns(rate)
