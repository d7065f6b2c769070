"""What a message's timeline says of a callback."""

from datetime import datetime, timedelta
from typing import Final

from switchboard.ids import MessageId, is_ulid, lowest_at
from switchboard.timeline import Entry, Happening, Kind
from switchboard.trigger import Trigger
from switchboard_callback_delivery.event import Event, Outcome

#: Triggers whose stream is a message with a timeline.
_OF_MESSAGES: Final = frozenset(
    {
        Trigger.MESSAGE_DELIVERY, Trigger.MESSAGE_SUBMIT, Trigger.MESSAGE_INBOUND, Trigger.EVENT_DELIVERY,
        Trigger.EVENT_INBOUND, Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION, Trigger.RECORD_NOTIFICATION,
    }
)  # fmt: skip
#: Older messages may have no partition of the timeline any more.
_TIMELINE_AGE: Final = timedelta(days=5)


def oldest_with_timeline(now: datetime) -> str:
    """The bound that `has_timeline` compares with."""
    return lowest_at(now - _TIMELINE_AGE)


def has_timeline(event: Event, oldest: str) -> bool:
    """Tell whether a callback is about a message whose timeline can still be written."""
    return event.trigger in _OF_MESSAGES and event.stream > oldest and is_ulid(event.stream)


def happening_of(outcome: Outcome, at: datetime) -> Happening:
    """The row that tells of it."""
    event = outcome.event
    # Of the try, over all rounds; of the last one if there was none.
    number = event.earlier_attempts + event.attempts + (outcome.verdict is not None)
    return Happening(
        message_id=MessageId(event.stream),
        at=at,
        kind=Kind.CALLBACK,
        cause=f"callback:{event.id}:{number}",
        entry=Entry(
            note=_note(outcome),
            callback_id=event.id,
            endpoint=event.endpoint,
            try_number=number,
            http_status=outcome.status,
            started_at=outcome.started_at,
        ),
    )


def _note(outcome: Outcome) -> str:
    if outcome.verdict is None:
        return "dismissed" if outcome.dismissed else "expired"
    return f"{outcome.event.trigger} {outcome.verdict}"
