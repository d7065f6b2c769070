"""The timeline of a message: what happened to it, in order, written once per transaction (DESIGN 5).

Replay safety, the log people read, and traces come from it. A row is (message id, number, at, kind, cause, entry).
The *cause* names the record that led to it: a record seen again finds its row and publishes the row's effects again.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.channel.contract import Exchange
from switchboard.ids import MessageId
from switchboard.reason import Reason
from switchboard.rules.progress import Effects
from switchboard.rules.route import Candidate


class Kind(StrEnum):
    """What kind of thing happened."""

    #: The router planned the message: its route was decided.
    PLANNED = "planned"
    #: An adapter submitted an attempt: the exchanges with the provider.
    SUBMITTED = "submitted"
    #: The router handled an attempt's outcome.
    OUTCOME = "outcome"
    RECEIPT = "receipt"
    #: A deadline passed and something followed from it.
    DUE = "due"
    ABANDONED = "abandoned"
    #: An operator resolved an unknown.
    RESOLVED = "resolved"
    #: A message from a person came in.
    RECEIVED = "received"
    #: A record about it could not be handled: it is a dead letter.
    DEAD_LETTER = "dead_letter"
    #: A callback was posted: how it went.
    CALLBACK = "callback"


class Entry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a row of the timeline says. Holds no text and no identity of a person."""

    #: What was decided or seen, in a few words.
    note: str = ""
    channel: str = ""
    step: int | None = None
    submission: int | None = None
    #: The status the fact brought, if any.
    status: str = ""
    reason: Reason | None = None
    started_at: datetime | None = None
    #: What a decision led to: published again if its record is seen again.
    effects: Effects | None = None
    exchanges: tuple[Exchange, ...] = ()
    #: CALLBACK: which callback, to which endpoint, the try's number and the HTTP status (0: no answer).
    callback_id: str = ""
    endpoint: str = ""
    try_number: int = 0
    http_status: int = 0
    #: The caller's trace context, linked from the message's trace (PLANNED).
    traceparent: str = ""
    #: PLANNED: every channel that was looked at, and what became of it. Empty where there was but one to try.
    candidates: tuple[Candidate, ...] = ()


class Happening(Struct, frozen=True):
    """One row of the timeline on its way to the database."""

    message_id: MessageId
    at: datetime
    kind: Kind
    cause: str
    entry: Entry


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The entry as it is stored."""
    return _encoder.encode(entry)


def decode_entry(stored: bytes) -> Entry:
    """The entry that was stored."""
    return _decoder.decode(stored)
