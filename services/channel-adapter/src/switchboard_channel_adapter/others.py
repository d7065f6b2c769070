"""Facts that are neither receipts nor messages, and the records they become. Pure."""

from collections.abc import Mapping
from typing import Any, assert_never

from msgspec.structs import replace

from switchboard.channel.contract import ChannelEventFact, EventFact, OptInFact, OptOutFact, UnsupportedFact
from switchboard.configuration import App
from switchboard.content import ContactMessageEvent
from switchboard.identity import ChannelIdentity
from switchboard.ids import MessageId, time_of
from switchboard.records import ChannelEvent, EventReceived, OptInReceived, OptOutReceived, UnsupportedReceived

Other = OptOutFact | OptInFact | UnsupportedFact | EventFact | ChannelEventFact
OtherRecord = OptOutReceived | OptInReceived | UnsupportedReceived | EventReceived | ChannelEvent


def name_of(fact: Other) -> str:
    """What a fact is known by when it is heard again, apart from messages the provider gave the same id."""
    return f"{type(fact).__name__}:{fact.provider_id}"


def record_of(
    fact: Other, id: MessageId, app: App, identity: ChannelIdentity, messages: Mapping[str, str]
) -> OtherRecord:
    """What the router is told of a fact. `messages` are our ids of messages, by the provider's."""
    named: dict[str, Any] = {
        "project_id": app.project_id, "app_id": app.id, "accepted_at": time_of(id), "event_at": fact.event_at,
    }  # fmt: skip
    match fact:
        case OptOutFact():
            return OptOutReceived(opt_out_id=id, identity=identity, **named)
        case OptInFact():
            return OptInReceived(opt_in_id=id, identity=identity, **named)
        case UnsupportedFact():
            return UnsupportedReceived(unsupported_id=id, identity=identity, payload=fact.payload, **named)
        case ChannelEventFact():
            return ChannelEvent(
                channel_event_id=id, channel=identity.channel, event_type=fact.event_type,
                additional_data=fact.additional_data, **named,
            )  # fmt: skip
        case EventFact():
            return EventReceived(
                event_id=id, identity=identity, contact_event=fact.contact_event,
                contact_message_event=_about(fact.contact_message_event, messages.get(fact.about, "")), **named,
            )  # fmt: skip
        case _:
            assert_never(fact)


def _about(event: ContactMessageEvent | None, message_id: str) -> ContactMessageEvent | None:
    """A reaction names our message, not the provider's."""
    if event is None or event.reaction_event is None or not message_id:
        return event
    return replace(event, reaction_event=replace(event.reaction_event, message_id=message_id))
