"""When a callback is tried again, and when it is given up (conversation-api 10.4, DESIGN 7). Pure.

The schedule belongs to a stream and tries its head: 5·2^k seconds after the head's first failure, up to 22 h 45 min,
and one last try before its 24 hours are up. Whatever held a try back, each event gets one before it expires.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

LIFETIME: Final = timedelta(hours=24)
FIRST_RETRY_SECONDS: Final = 5
#: 5·2^14 s is 22 h 45 min 20 s.
LAST_DOUBLING: Final = 14
#: How long before the end the last try is made.
LAST_TRY_MARGIN: Final = timedelta(minutes=1)
#: A retry is late by at most this share of its offset, so that what failed together is not tried together.
JITTER: Final = 0.1
MOST_JITTER: Final = timedelta(minutes=5)
#: `Retry-After` is heard up to this long.
MOST_RETRY_AFTER: Final = timedelta(hours=1)
#: A head refused for so long, while its endpoint takes others, lets its followers pass.
PASSED_AFTER: Final = timedelta(minutes=15)


class Verdict(StrEnum):
    """What one try came to."""

    #: 2xx: the app has it.
    TAKEN = "taken"
    #: 429: it works, but not so fast.
    THROTTLED = "throttled"
    #: Another 4xx, or a redirect: it works and does not want this one.
    REFUSED = "refused"
    #: The webhook asked that this answer ends the retries.
    ENDED = "ended"
    #: 5xx, no connection, no answer in time.
    FAILED = "failed"


def judge(status: int, ends_on: Collection[int] = ()) -> Verdict:
    """What an answer means; `status` 0 is no answer. `ends_on`: answers that a webhook wants to be final."""
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status in ends_on:
        return Verdict.ENDED
    if status == 429:
        return Verdict.THROTTLED
    if 300 <= status < 500 and status not in (408, 425):
        return Verdict.REFUSED
    return Verdict.FAILED


class Head(Struct, frozen=True):
    """The oldest unfinished event of a stream: what its schedule knows of it."""

    expires_at: datetime
    #: Real tries so far.
    attempts: int = 0
    #: Its first failure, where the offsets count from.
    failed_at: datetime | None = None


def next_try(
    head: Head, now: datetime, *, jitter: float = 0.0, retry_after_seconds: float | None = None
) -> datetime | None:
    """When the head is tried again after a failed try; None when that was the last: it expires.

    `head` counts the try and holds its first failure. `jitter` is random in [0, 1).
    """
    failed_at = head.failed_at or now
    last = head.expires_at - LAST_TRY_MARGIN
    if now >= last:
        return None
    due = next(
        (
            late
            for k in range(max(0, head.attempts - 1), LAST_DOUBLING + 1)
            if (late := _offset(failed_at, k, jitter)) > now
        ),
        last,
    )
    if retry_after_seconds is not None and retry_after_seconds > 0:
        due = max(due, now + min(timedelta(seconds=retry_after_seconds), MOST_RETRY_AFTER))
    return min(due, last)


def is_over(head: Head, now: datetime) -> bool:
    """Tell whether a head expires without another try: its time is up and it had a real one."""
    return now >= head.expires_at and head.attempts > 0


def may_be_passed(failing_since: datetime, taken_at: datetime | None, now: datetime) -> bool:
    """Tell whether a head's followers may pass it: refused for long, while its endpoint took others."""
    return taken_at is not None and taken_at > failing_since and now - failing_since >= PASSED_AFTER


def retry_after_seconds(value: str | None, unix_now: float) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date; None if there is none or it cannot be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - unix_now)
    except (ValueError, TypeError, OverflowError):
        return None


def _offset(failed_at: datetime, k: int, jitter: float) -> datetime:
    offset = timedelta(seconds=FIRST_RETRY_SECONDS * 2**k)
    return failed_at + offset + min(offset * JITTER, MOST_JITTER) * jitter
