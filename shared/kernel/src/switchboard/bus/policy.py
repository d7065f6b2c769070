"""The one place that decides what a failure means: again, apart, or dead letter. Pure.

| what the handler raised | a batch | a record alone |
|---|---|---|
| `Transient`, connection, time-out | again after back-off, in halves if others succeed | again, without limit |
| `UnknownRecordType` | in halves at once | again until it has waited `unknown_type_seconds`, then dead letter |
| `Permanent` | in halves at once | dead letter |
| anything else | in halves at once | counted; the fifth is a dead letter |

Halving ends with the bad record alone and its neighbours finished. A failure of a batch counts against nobody.
"""

import asyncio
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.bus.errors import Permanent, Transient, UnknownRecordType, WaitCause

#: The first back-off and the longest, in seconds; each try doubles it.
FIRST_BACK_OFF_SECONDS: Final = 0.1
LONGEST_BACK_OFF_SECONDS: Final = 5.0
#: A batch that keeps meeting transient errors while others are finished is halved from this try on: one of its
#: records may be the reason. While nothing succeeds the world is down, and more, smaller calls would not help it;
#: every `HALVE_EVERY` tries the batch is halved all the same, for there may be no others to tell.
HALVE_FROM_TRY: Final = 3
HALVE_EVERY: Final = 10

# SQLSTATE classes that say "not now": connection, rollback by conflict, resources, operator, system, and lock waits.
_TRANSIENT_SQLSTATES: Final = ("08", "40", "53", "57", "58", "55P03", "25006")


class RetryLimits(Struct, frozen=True):
    """How much patience a record gets before it is a dead letter."""

    #: Failures of one record, alone, that make it a dead letter.
    failures: int = 5
    #: How long a record of an unknown type waits for code that knows it.
    unknown_type_seconds: float = 600.0


class KnownErrors(Struct, frozen=True):
    """Exception types from outside the bus and what they count as."""

    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    unknown_record_type: tuple[type[BaseException], ...] = ()


class DeadLetterReason(StrEnum):
    """Which rule made a record a dead letter."""

    PERMANENT = "permanent"
    FAILED_REPEATEDLY = "failed_repeatedly"
    UNKNOWN_RECORD_TYPE = "unknown_record_type"


class DeadLetterCause(Struct, frozen=True):
    """Why a record became a dead letter. `detail` may quote content: it belongs in the topic, never in a log."""

    reason: DeadLetterReason
    #: The exception's type.
    error: str
    detail: str
    failures: int


class Trouble(Struct, frozen=True):
    """What a record has been through, kept only for records that failed."""

    transient_tries: int = 0
    failures: int = 0
    #: When it last met a transient error, monotonic seconds.
    failed_at: float | None = None
    #: When its type was first found unknown, monotonic seconds.
    unknown_since: float | None = None
    #: Set once the record is to be a dead letter: what remains is to bury it.
    burial: DeadLetterCause | None = None
    #: The dead letter itself is in Kafka; only the end of its message is missing.
    buried: bool = False


UNTROUBLED: Final = Trouble()


class Again(Struct, frozen=True):
    """Hand the records out again at `due`, in two halves if `halve`."""

    due: float
    #: None: the wait has no good reason, and the watchdog may hold it against the consumer.
    cause: WaitCause | None
    trouble: Trouble
    halve: bool = False


class Bury(Struct, frozen=True):
    """The record is a dead letter."""

    trouble: Trouble
    cause: DeadLetterCause


def back_off_seconds(tries: int, jitter: float) -> float:
    """How long to wait after that many tries (from 1). `jitter` in [0, 1) takes up to a quarter away."""
    longest = min(FIRST_BACK_OFF_SECONDS * 2.0 ** min(tries - 1, 16), LONGEST_BACK_OFF_SECONDS)
    return longest * (1.0 - 0.25 * jitter)


def transient_cause(error: BaseException, known: KnownErrors) -> WaitCause | None:
    """What a transient error waits for, or None if the error is not transient."""
    if isinstance(error, Transient):
        return error.cause
    # A cancelled handler has finished nothing: its records are seen again.
    if isinstance(error, asyncio.CancelledError):
        return WaitCause.BACK_OFF
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return WaitCause.DATABASE if sqlstate.startswith(_TRANSIENT_SQLSTATES) else None
    if isinstance(error, (ConnectionError, TimeoutError, *known.transient)):
        return WaitCause.BACK_OFF
    return None


def decide(
    error: BaseException,
    *,
    size: int,
    trouble: Trouble,
    now: float,
    finished_at: float | None,
    jitter: float,
    limits: RetryLimits,
    known: KnownErrors,
) -> Again | Bury:
    """Decide what follows when a handler failed on `size` records, of which `trouble` is the worst history.

    `finished_at` is when the handler last finished any record. It does not raise.
    """
    if (cause := transient_cause(error, known)) is not None:
        tries = trouble.transient_tries + 1
        return Again(
            due=now + back_off_seconds(tries, jitter),
            cause=cause,
            trouble=replace(trouble, transient_tries=tries, failed_at=now),
            halve=size > 1 and (_others_succeed(trouble, tries, finished_at) or tries % HALVE_EVERY == 0),
        )
    if size > 1:
        return Again(due=now, cause=WaitCause.BACK_OFF, trouble=trouble, halve=True)
    return _decide_alone(error, trouble, now, jitter, limits, known)


def _others_succeed(trouble: Trouble, tries: int, finished_at: float | None) -> bool:
    if tries < HALVE_FROM_TRY or trouble.failed_at is None or finished_at is None:
        return False
    return finished_at > trouble.failed_at


def _decide_alone(
    error: BaseException, trouble: Trouble, now: float, jitter: float, limits: RetryLimits, known: KnownErrors
) -> Again | Bury:
    if isinstance(error, (UnknownRecordType, *known.unknown_record_type)):
        since = now if trouble.unknown_since is None else trouble.unknown_since
        if now - since >= limits.unknown_type_seconds:
            return _bury(DeadLetterReason.UNKNOWN_RECORD_TYPE, error, trouble)
        tries = trouble.transient_tries + 1
        waiting = replace(trouble, unknown_since=since, transient_tries=tries)
        due = min(now + back_off_seconds(tries, jitter), since + limits.unknown_type_seconds)
        return Again(due=due, cause=WaitCause.UNKNOWN_TYPE, trouble=waiting)
    if isinstance(error, (Permanent, *known.permanent)):
        return _bury(DeadLetterReason.PERMANENT, error, trouble)
    failed = replace(trouble, failures=trouble.failures + 1)
    if failed.failures >= limits.failures:
        return _bury(DeadLetterReason.FAILED_REPEATEDLY, error, failed)
    due = now + back_off_seconds(failed.failures, jitter)
    return Again(due=due, cause=WaitCause.BACK_OFF, trouble=failed)


def _bury(reason: DeadLetterReason, error: BaseException, trouble: Trouble) -> Bury:
    cause = DeadLetterCause(
        reason=reason, error=type(error).__name__, detail=str(error)[:2_000], failures=trouble.failures
    )
    return Bury(trouble=replace(trouble, burial=cause), cause=cause)


def decide_burial(error: BaseException, trouble: Trouble, now: float, jitter: float, known: KnownErrors) -> Again:
    """Decide when to try again to bury a dead letter. It never passes unburied: its message would never end.

    An error with no known cause leaves the wait without one, so that the watchdog ends a process that cannot bury.
    """
    tries = trouble.transient_tries + 1
    return Again(
        due=now + back_off_seconds(tries, jitter),
        cause=transient_cause(error, known),
        trouble=replace(trouble, transient_tries=tries),
    )
