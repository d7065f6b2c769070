"""What follows an error, as a table."""

import asyncio

import pytest

from switchboard.bus import (
    BadRecords,
    DeadLetterReason,
    KnownErrors,
    Permanent,
    PublishFailed,
    RetryLimits,
    Transient,
    UnknownRecordType,
    WaitCause,
)
from switchboard.bus.policy import (
    LONGEST_BACK_OFF_SECONDS,
    UNTROUBLED,
    Again,
    Bury,
    Trouble,
    back_off_seconds,
    decide,
    decide_burial,
)

NOW = 50.0


class OfDatabase(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


class Foreign(Exception):
    pass


def judge(
    error: BaseException,
    *,
    size: int = 1,
    trouble: Trouble = UNTROUBLED,
    now: float = NOW,
    finished_at: float | None = None,
    known: KnownErrors | None = None,
) -> Again | Bury:
    return decide(
        error,
        size=size,
        trouble=trouble,
        now=now,
        finished_at=finished_at,
        jitter=0.0,
        limits=RetryLimits(),
        known=known or KnownErrors(),
    )


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Transient(), WaitCause.BACK_OFF),
        (Transient(cause=WaitCause.DATABASE), WaitCause.DATABASE),
        (PublishFailed([0], "silence"), WaitCause.BROKER),
        (ConnectionResetError(), WaitCause.BACK_OFF),
        (TimeoutError(), WaitCause.BACK_OFF),
        (asyncio.CancelledError(), WaitCause.BACK_OFF),
        (OfDatabase("08006"), WaitCause.DATABASE),
        (OfDatabase("40001"), WaitCause.DATABASE),
        (OfDatabase("40P01"), WaitCause.DATABASE),
        (OfDatabase("53300"), WaitCause.DATABASE),
        (OfDatabase("57014"), WaitCause.DATABASE),
        (OfDatabase("57P01"), WaitCause.DATABASE),
        (OfDatabase("55P03"), WaitCause.DATABASE),
    ],
)
@pytest.mark.parametrize("tries", [0, 4, 1_000_000])
def test_transient_errors_are_retried_without_limit(error: BaseException, cause: WaitCause, tries: int) -> None:
    match judge(error, trouble=Trouble(transient_tries=tries)):
        case Again(cause=seen, trouble=after, due=due):
            assert seen is cause
            assert after.transient_tries == tries + 1
            assert after.failures == 0
            assert NOW < due <= NOW + LONGEST_BACK_OFF_SECONDS
        case other:
            pytest.fail(str(other))


def test_a_violated_constraint_is_not_transient() -> None:
    match judge(OfDatabase("23505")):
        case Again(trouble=after):
            assert after.failures == 1
        case other:
            pytest.fail(str(other))


def test_the_fifth_failure_of_a_record_is_a_dead_letter() -> None:
    trouble, waits = UNTROUBLED, []
    for _ in range(4):
        again = judge(ValueError("bad"), trouble=trouble)
        assert isinstance(again, Again)
        trouble = again.trouble
        waits.append(again.due - NOW)

    buried = judge(ValueError("bad"), trouble=trouble)

    assert isinstance(buried, Bury)
    assert buried.cause.reason is DeadLetterReason.FAILED_REPEATEDLY
    assert (buried.cause.error, buried.cause.detail, buried.cause.failures) == ("ValueError", "bad", 5)
    assert waits == sorted(waits)


def test_a_permanent_error_is_a_dead_letter_at_once() -> None:
    buried = judge(Permanent("no such channel"))

    assert isinstance(buried, Bury)
    assert buried.cause.reason is DeadLetterReason.PERMANENT
    assert buried.trouble.burial == buried.cause


@pytest.mark.parametrize("error", [ValueError(), Permanent(), UnknownRecordType(), BadRecords({9: ValueError()})])
def test_a_batch_is_halved_at_once_and_nobody_is_counted(error: Exception) -> None:
    assert judge(error, size=7) == Again(due=NOW, cause=WaitCause.BACK_OFF, trouble=UNTROUBLED, halve=True)


def test_an_unknown_type_waits_ten_minutes_then_is_a_dead_letter() -> None:
    first = judge(UnknownRecordType(), now=0.0)
    assert isinstance(first, Again)
    assert first.cause is WaitCause.UNKNOWN_TYPE

    last_wait = judge(UnknownRecordType(), trouble=first.trouble, now=599.95)
    too_long = judge(UnknownRecordType(), trouble=first.trouble, now=600.0)

    assert isinstance(last_wait, Again)
    assert last_wait.due == 600.0
    assert isinstance(too_long, Bury)
    assert too_long.cause.reason is DeadLetterReason.UNKNOWN_RECORD_TYPE


@pytest.mark.parametrize(
    ("tries", "finished_at", "halved"),
    [
        (0, NOW, False),  # the first tries leave the batch whole
        (2, NOW - 0.5, True),  # others were finished since it failed: the fault is among its own
        (2, NOW - 2.0, False),  # nothing was finished since: the world is down
        (2, None, False),
        (9, None, True),  # nobody else to tell
    ],
)
def test_a_batch_in_transient_trouble_is_halved_on_evidence(
    tries: int, finished_at: float | None, halved: bool
) -> None:
    trouble = Trouble(transient_tries=tries, failed_at=NOW - 1.0)

    again = judge(TimeoutError(), size=4, trouble=trouble, finished_at=finished_at)

    assert isinstance(again, Again)
    assert again.halve is halved


def test_errors_of_others_can_be_made_known() -> None:
    assert isinstance(judge(Foreign(), known=KnownErrors(permanent=(Foreign,))), Bury)

    waits = judge(Foreign(), known=KnownErrors(unknown_record_type=(Foreign,)))
    assert isinstance(waits, Again)
    assert waits.cause is WaitCause.UNKNOWN_TYPE

    again = judge(Foreign(), known=KnownErrors(transient=(Foreign,)))
    assert isinstance(again, Again)
    assert again.trouble.transient_tries == 1


def test_a_burial_is_tried_again_for_ever_and_only_known_causes_excuse_it() -> None:
    trouble = Trouble(transient_tries=1_000)

    by_database = decide_burial(OfDatabase("08006"), trouble, NOW, 0.0, KnownErrors())
    by_a_bug = decide_burial(KeyError(), trouble, NOW, 0.0, KnownErrors())

    assert by_database.cause is WaitCause.DATABASE
    assert by_a_bug.cause is None


def test_back_off_doubles_up_to_its_longest_and_jitter_only_shortens() -> None:
    waits = [back_off_seconds(tries, 0.0) for tries in range(1, 10)]

    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == back_off_seconds(1_000_000, 0.0) == LONGEST_BACK_OFF_SECONDS
    assert back_off_seconds(3, 0.999) > 0.75 * 0.4
