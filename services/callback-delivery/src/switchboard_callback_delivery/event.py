"""One callback on its way to one endpoint, as the process holds it, and what one try came to."""

from datetime import datetime

from msgspec import Struct

from switchboard.callbacks.endpoint import lane_of
from switchboard.callbacks.schedule import Verdict
from switchboard.ids import AppId, CallbackId, LaneId
from switchboard.records import DeliverCallback
from switchboard.trigger import Trigger


class Event(Struct, frozen=True, kw_only=True):
    """A callback and what its row knows."""

    id: CallbackId
    project_id: str
    app_id: AppId
    endpoint: LaneId
    webhook_id: str
    target: str
    trigger: Trigger
    stream: str
    sequence: int
    event_at: datetime
    body: bytes
    #: Real tries before this one.
    attempts: int = 0
    #: Tries of earlier rounds: its owner had it delivered again after it was finished.
    earlier_attempts: int = 0
    first_failed_at: datetime | None = None
    #: None until its first try or parking is recorded.
    expires_at: datetime | None = None


class Lease(Struct, frozen=True):
    """The right to record what becomes of a stream's head. A later owner has another token."""

    endpoint: LaneId
    stream: str
    #: The event's id if it was passed and is a stream of its own, else "".
    apart: str
    token: int


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one event for now."""

    event: Event
    #: None: it came straight from the topic and has no row.
    lease: Lease | None = None
    #: None: it was not tried, because it is over: expired, or nobody wants it any more.
    verdict: Verdict | None = None
    dismissed: bool = False
    #: 0: no answer.
    status: int = 0
    #: Why there was no answer, without the URL.
    error: str = ""
    #: The first bytes of the answer.
    answer: bytes = b""
    retry_after_seconds: float | None = None
    #: How long its app keeps it after it ended; None: not at all.
    kept_seconds: float | None = None
    #: Its endpoint's rate.
    per_second: float = 100
    #: A success is news to its lane: it failed before, or is slowed down, or its gate is closed.
    lane_is_troubled: bool = False
    #: When the try began, by this process's clock.
    started_at: datetime | None = None
    #: When it got its slot, by the database's clock; None: it came from the tables.
    granted_at: datetime | None = None


def event_of(record: DeliverCallback, endpoint: LaneId | None = None) -> Event:
    """The event that a record orders, for the endpoint it names unless told. Raises ValueError if it names none."""
    return Event(
        id=record.callback_id,
        project_id=record.project_id,
        app_id=record.app_id,
        endpoint=endpoint or lane_of(record.app_id, record.webhook_id, record.target),
        webhook_id=record.webhook_id,
        target=record.target,
        trigger=record.trigger,
        stream=record.stream,
        sequence=record.sequence,
        event_at=record.event_at,
        body=bytes(record.body),
    )
