"""One request the webhook receiver took, and what it made of it."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """What the signature of a callback is worth."""

    VALID = "valid"
    INVALID = "invalid"
    #: A secret is known, but the callback carries no signature.
    UNSIGNED = "unsigned"
    #: No secret is known.
    UNCHECKED = "unchecked"


class ReceivedCallback(Struct, frozen=True):
    """One request to `/receiver/{name}`."""

    #: Counts from 1 for each receiver.
    number: int
    receiver: str
    at: datetime
    method: str
    path: str
    #: Names in lower case.
    headers: dict[str, str]
    #: The raw body; cut for show, never in the log or before the signature is checked.
    body: str
    signature: Verdict
    #: Why a signature is not valid; "" when there is nothing to say.
    signature_note: str
    #: The status answered; None when no whole answer was given.
    status: int | None
    behaviour: str
    #: The same event was received before: at-least-once at work.
    repeated: bool
