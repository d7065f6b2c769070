"""When callbacks are tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.callbacks.schedule import (
    LIFETIME,
    Head,
    Verdict,
    is_over,
    judge,
    may_be_passed,
    next_try,
    retry_after_seconds,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def live(jitter: float, took_seconds: float = 0) -> list[datetime]:
    """The moments of all tries of a callback whose every try fails."""
    tries = [T0]
    while True:
        now = tries[-1] + seconds(took_seconds)
        head = Head(T0 + LIFETIME, len(tries), T0 + seconds(took_seconds))
        due = next_try(head, now, jitter=jitter)
        if due is None:
            return tries
        tries.append(due)


def test_the_offsets_double_from_5_s_to_22_h_45_min_and_a_last_try_comes_before_24_h() -> None:
    offsets = [(moment - T0).total_seconds() for moment in live(jitter=0)]

    assert offsets == [0, *(5 * 2**k for k in range(15)), 24 * 3600 - 60]


@given(jitter=st.floats(0, 1, exclude_max=True), took_seconds=st.floats(0, 10))
def test_there_are_15_to_17_tries_in_order_and_within_24_h_whatever_they_take(
    jitter: float, took_seconds: float
) -> None:
    tries = live(jitter, took_seconds)

    # Tries as long as the first offsets leave one or two of those out.
    assert 15 <= len(tries) <= 17
    assert tries == sorted(tries)
    assert tries[-1] < T0 + LIFETIME


def test_offsets_that_passed_while_a_gate_was_closed_are_not_made_up_for() -> None:
    head = Head(T0 + LIFETIME, 3, T0)

    assert next_try(head, T0 + seconds(1000)) == T0 + seconds(1280)


def test_an_event_whose_time_is_up_is_over_only_after_a_real_try() -> None:
    late = T0 + LIFETIME

    assert not is_over(Head(T0 + LIFETIME, attempts=0), late)
    assert is_over(Head(T0 + LIFETIME, attempts=1), late)
    assert not is_over(Head(T0 + LIFETIME, attempts=1), late - seconds(1))
    assert next_try(Head(T0 + LIFETIME, 1, late), late) is None


@pytest.mark.parametrize(
    ("asked", "due"),
    [(2, 5), (120, 120), (7200, 3600), (None, 5), (0, 5), (-3, 5)],
    ids=["shorter than the schedule", "heard", "bounded", "none", "zero", "negative"],
)
def test_retry_after_is_heard_within_bounds(asked: float | None, due: float) -> None:
    assert next_try(Head(T0 + LIFETIME, 1, T0), T0, retry_after_seconds=asked) == T0 + seconds(due)


def test_retry_after_never_takes_the_last_try_away() -> None:
    now = T0 + timedelta(hours=23, minutes=30)

    assert next_try(Head(T0 + LIFETIME, 15, T0), now, retry_after_seconds=3600) == T0 + LIFETIME - seconds(60)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.TAKEN), (204, Verdict.TAKEN), (299, Verdict.TAKEN), (0, Verdict.FAILED), (301, Verdict.REFUSED),
        (400, Verdict.REFUSED), (401, Verdict.REFUSED), (404, Verdict.REFUSED), (408, Verdict.FAILED),
        (410, Verdict.REFUSED), (425, Verdict.FAILED), (429, Verdict.THROTTLED), (500, Verdict.FAILED),
        (503, Verdict.FAILED), (599, Verdict.FAILED), (101, Verdict.FAILED),
    ],
)  # fmt: skip
def test_only_2xx_is_success(status: int, verdict: Verdict) -> None:
    assert judge(status) is verdict


def test_410_ends_the_retries_only_where_the_webhook_asked() -> None:
    assert judge(410, {410}) is Verdict.ENDED
    assert judge(410) is Verdict.REFUSED
    assert judge(200, {200}) is Verdict.TAKEN


@pytest.mark.parametrize(
    ("minutes", "taken_minutes", "passed"),
    [(15, 1, True), (14.9, 1, False), (60, None, False), (60, -1, False)],
    ids=["others taken since", "too early", "never took any", "took none since"],
)
def test_a_head_is_passed_after_15_minutes_while_its_endpoint_takes_others(
    minutes: float, taken_minutes: float | None, passed: bool
) -> None:
    taken_at = None if taken_minutes is None else T0 + timedelta(minutes=taken_minutes)

    assert may_be_passed(T0, taken_at, T0 + timedelta(minutes=minutes)) is passed


@pytest.mark.parametrize(
    ("header", "heard"),
    [
        (None, None), ("120", 120.0), (" 7 ", 7.0), ("soon", None), ("-3", None),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0), ("9" * 400, 999999999.0),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, heard: float | None) -> None:
    assert retry_after_seconds(header, T0.timestamp()) == heard
