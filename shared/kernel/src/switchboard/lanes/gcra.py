"""Pacing without bursts (GCRA): a slot is a moment, and the next one is never closer than the interval.

`tat` is the theoretical arrival time, the earliest moment of the next slot. Slots may be taken ahead of time, so
that whoever fills them need not come back for each. Pure integers: microseconds for moments, nanoseconds for
intervals, rounded up, so that no second ever holds a slot too many.
"""

from math import ceil
from typing import Final

#: How far ahead of the clock a drainer takes slots.
AHEAD_US: Final = 100_000
#: How far ahead a planner takes them, past the line, in a lane that others may be waiting for.
BYPASS_AHEAD_US: Final = 50_000
#: How late a slot may still be given to somebody who was waiting for it.
LATE_US: Final = 100_000
_NANOSECONDS: Final = 1_000_000_000


def interval_ns(per_second: float) -> int:
    """Nanoseconds from slot to slot at this rate, never too short. Raises ValueError unless it is positive."""
    if not per_second > 0:
        raise ValueError(f"a rate of {per_second} a second lets nothing through")
    return ceil(_NANOSECONDS / per_second)


def take(tat_us: int, interval: int, units: int, not_before_us: int) -> tuple[int, int]:
    """Take the next slot for `units` at once: when it is, and the `tat` after it.

    A lane that was idle starts at `not_before_us`: time without use is lost, there is no burst to catch up.
    """
    slot = max(tat_us, not_before_us)
    return slot, slot - (-units * interval // 1000)


def free_slots(tat_us: int, interval: int, now_us: int, ahead_us: int = AHEAD_US, late_us: int = 0) -> int:
    """How many slots of one unit lie between `now_us - late_us` and `now_us + ahead_us`, that bound excluded."""
    room_us = now_us + ahead_us - max(tat_us, now_us - late_us)
    return max(0, -(-room_us * 1000 // interval))
