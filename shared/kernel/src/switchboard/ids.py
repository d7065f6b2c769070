"""Ids: what they are and how they are made.

Ids that start a story (a message, an app) are minted: ULIDs, 26 characters of Crockford base 32 whose first ten
are the millisecond they were made. Ids of everything that follows are *derived* from what caused it, so that a
record handled twice writes the same rows and publishes the same events (DESIGN 5).
"""

import hashlib
import os
from datetime import UTC, datetime
from typing import Final, NewType, TypeVar

from ulid import ULID

#: The tenant: a UUID given by the operator.
ProjectId = NewType("ProjectId", str)
#: An app of a project: holds channel credentials and webhooks.
AppId = NewType("AppId", str)
#: A message or event, to or from a contact. Its 16 bytes are also its trace id (DESIGN 10).
MessageId = NewType("MessageId", str)
#: A registered webhook.
WebhookId = NewType("WebhookId", str)
ContactId = NewType("ContactId", str)
ConversationId = NewType("ConversationId", str)
#: One write of the API about a contact or conversation, told as a callback.
ChangeId = NewType("ChangeId", str)
#: One submission of a message to one channel: `message.step.submission`.
AttemptId = NewType("AttemptId", str)
#: One callback for one endpoint. The same on every try and every replay.
CallbackId = NewType("CallbackId", str)
#: What a channel sends through: a provider account of the operator (SMS) or an app's own credential (TELEGRAM).
AccountKey = NewType("AccountKey", str)
#: A waiting line with a gate (DESIGN 6).
LaneId = NewType("LaneId", str)

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS: Final = frozenset(_ALPHABET)
_TIME_LENGTH: Final = 10

AnyId = TypeVar("AnyId", bound=str)


def mint() -> str:
    """Make a new ULID from the clock and the system's randomness."""
    return str(ULID())


def is_ulid(text: str) -> bool:
    """Tell whether `text` is a ULID in its canonical spelling."""
    return len(text) == 26 and text[0] <= "7" and _DIGITS.issuperset(text)


def time_of(ulid: str) -> datetime:
    """The moment a ULID was made, in UTC, to the millisecond."""
    return datetime.fromtimestamp(milliseconds_of(ulid) / 1000, UTC)


def milliseconds_of(ulid: str) -> int:
    """The Unix time in milliseconds that a ULID begins with."""
    value = 0
    for character in ulid[:_TIME_LENGTH]:
        value = value * 32 + _ALPHABET.index(character)
    return value


def lowest_at(moment: datetime) -> str:
    """The least ULID that can be made at `moment`: the bound of a day's partition."""
    return _base32(int(moment.timestamp() * 1000), _TIME_LENGTH) + "0" * 16


def derive(near: str, *causes: str | int) -> str:
    """Make the ULID that `near` and `causes` lead to, in the same millisecond (and so the same partition) as `near`.

    Equal causes give an equal id in every process and at every time. `near` is one of them as a whole: many ids are
    made in one millisecond.
    """
    digest = hashlib.blake2b("\x1f".join((near, *map(str, causes))).encode(), digest_size=10, person=b"switchboard-id")
    return near[:_TIME_LENGTH] + _base32(int.from_bytes(digest.digest(), "big"), 16)


def derive_at(moment: datetime, *causes: str | int) -> str:
    """Like `derive`, for a cause that has a time but no id of its own yet."""
    return derive(lowest_at(moment), *causes)


def attempt_id(message_id: MessageId, step: int, submission: int) -> AttemptId:
    """Name one submission: the message, the step of its route, the number of its dispatch."""
    return AttemptId(f"{message_id}.{step}.{submission}")


def parse_attempt_id(attempt: str) -> tuple[MessageId, int, int]:
    """Take an attempt id apart. Raises ValueError if it is not one."""
    message, step, submission = attempt.split(".")
    return MessageId(message), int(step), int(submission)


def trace_id_of(ulid: str) -> int:
    """The 128 bits of a ULID, which are the trace id of the message it names."""
    return int(ULID.from_str(ulid))


def random_token(size_bytes: int = 24) -> str:
    """A secret for keys and tokens, of letters and digits, `size_bytes` bytes strong."""
    return _base32(int.from_bytes(os.urandom(size_bytes), "big"), size_bytes * 8 // 5 + 1)


def _base32(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
