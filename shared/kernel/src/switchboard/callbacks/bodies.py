"""Callback bodies: facts in, the bytes to post out (conversation-api 9.3, 9.4). Pure.

One struct for each payload, its fields in the order of the reference, and one function for each trigger. What is
absent in dispatch mode (contacts, conversations) is told as "". The structs are also what `schemas/events` is made of.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, defstruct, field

from switchboard.callbacks.compact import encode, encode_content, timestamp
from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.content import AppMessage, ContactEvent, ContactMessage, ContactMessageEvent
from switchboard.conversation import Conversation
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.reason import Reason
from switchboard.records import ProcessingMode
from switchboard.status import Status
from switchboard.trigger import Trigger


class Payload(Struct, frozen=True, kw_only=True):
    """What every payload struct is."""


class DeliveryReport(Payload, frozen=True, kw_only=True):
    """Where a message to a contact is now."""

    message_id: str
    conversation_id: str = ""
    status: Status
    channel_identity: ChannelIdentity
    contact_id: str = ""
    #: Only with FAILED and SWITCHING_CHANNEL.
    reason: Reason | UnsetType = UNSET
    #: The send's `message_metadata`.
    metadata: str = ""
    processing_mode: ProcessingMode


class SubmitNotification(Payload, frozen=True, kw_only=True):
    """A channel took a message; its receipts come later."""

    message_id: str
    conversation_id: str = ""
    channel_identity: ChannelIdentity
    contact_id: str = ""
    submitted_message: AppMessage
    metadata: str = ""
    processing_mode: ProcessingMode


class InboundMessage(Payload, frozen=True, kw_only=True):
    """A message from a contact; redacted or not, the shape is one."""

    id: str
    direction: Literal["TO_APP"] = "TO_APP"
    contact_message: ContactMessage
    channel_identity: ChannelIdentity
    conversation_id: str = ""
    contact_id: str = ""
    #: The channel's facts as JSON, or in a reply the `message_metadata` of the message replied to.
    metadata: str = ""
    accept_time: str
    #: The number or id the contact wrote to, where the channel has one.
    sender_id: str = ""
    processing_mode: ProcessingMode
    injected: bool = False


class EventDeliveryReport(Payload, frozen=True, kw_only=True):
    """Where an event to a contact is now."""

    event_id: str
    status: Status
    channel_identity: ChannelIdentity
    contact_id: str = ""
    reason: Reason | UnsetType = UNSET
    metadata: str = ""
    processing_mode: ProcessingMode


class InboundEvent(Payload, frozen=True, kw_only=True):
    """An event from a contact: one of `contact_event` and `contact_message_event`."""

    id: str
    direction: Literal["TO_APP"] = "TO_APP"
    contact_event: ContactEvent | UnsetType = UNSET
    contact_message_event: ContactMessageEvent | UnsetType = UNSET
    channel_identity: ChannelIdentity
    contact_id: str = ""
    conversation_id: str = ""
    accept_time: str
    processing_mode: ProcessingMode


class ConversationNotification(Payload, frozen=True, kw_only=True):
    """A conversation started, stopped or was deleted."""

    conversation: Conversation


class ContactNotification(Payload, frozen=True, kw_only=True):
    """A contact was made, changed or deleted."""

    contact: Contact


class ContactMerge(Payload, frozen=True, kw_only=True):
    """Two contacts became one."""

    preserved_contact: Contact
    deleted_contact: Contact


class DuplicatedIdentities(Payload, frozen=True, kw_only=True):
    """Contacts that share identities."""

    duplicated_identities: tuple[DuplicatedIdentity, ...]


class UnsupportedCallback(Payload, frozen=True, kw_only=True):
    """What a channel told that has no mapping."""

    channel: ChannelName
    #: The channel's own payload, raw, as a string.
    payload: str
    processing_mode: ProcessingMode
    id: str
    contact_id: str = ""
    conversation_id: str = ""
    channel_identity: ChannelIdentity


class ConsentStatus(StrEnum):
    """What a consent request or keyword came to."""

    OPT_IN_STATUS_UNSPECIFIED = "OPT_IN_STATUS_UNSPECIFIED"
    OPT_IN_SUCCEEDED = "OPT_IN_SUCCEEDED"
    OPT_IN_FAILED = "OPT_IN_FAILED"
    OPT_OUT_STATUS_UNSPECIFIED = "OPT_OUT_STATUS_UNSPECIFIED"
    OPT_OUT_SUCCEEDED = "OPT_OUT_SUCCEEDED"
    OPT_OUT_FAILED = "OPT_OUT_FAILED"


class ErrorDetails(Payload, frozen=True, kw_only=True):
    """Why a consent was not recorded."""

    description: str


class ConsentNotification(Payload, frozen=True, kw_only=True):
    """A contact opted in or out."""

    request_id: str
    contact_id: str = ""
    channel: ChannelName
    identity: str
    status: ConsentStatus
    #: Only on failure.
    error_details: ErrorDetails | UnsetType = UNSET
    processing_mode: ProcessingMode


class CapabilityStatus(StrEnum):
    """What a channel says it can do for an identity."""

    #: The channel cannot tell.
    CAPABILITY_UNKNOWN = "CAPABILITY_UNKNOWN"
    CAPABILITY_FULL = "CAPABILITY_FULL"
    CAPABILITY_PARTIAL = "CAPABILITY_PARTIAL"
    NO_CAPABILITY = "NO_CAPABILITY"


class CapabilityNotification(Payload, frozen=True, kw_only=True):
    """The answer to a capability query."""

    request_id: str
    contact_id: str = ""
    channel: ChannelName
    identity: str
    capability_status: CapabilityStatus
    #: Only with CAPABILITY_PARTIAL.
    channel_capabilities: tuple[str, ...] | UnsetType = UNSET
    #: Only when the query failed.
    reason: Reason | UnsetType = UNSET


class ChannelEvent(Payload, frozen=True, kw_only=True):
    """Something happened to the channel's account."""

    channel: ChannelName
    #: Free; WHATS_APP_QUALITY_RATING_CHANGED is the one value that is confirmed.
    event_type: str
    #: A JSON object.
    additional_data: Raw


class ChannelEventNotification(Payload, frozen=True, kw_only=True):
    """A channel event, wrapped as the contract wraps it."""

    channel_event: ChannelEvent


class RecordStatus(StrEnum):
    """What became of a record."""

    RECORD_STATUS_UNSPECIFIED = "RECORD_STATUS_UNSPECIFIED"
    EVENT_RECORD_STORED = "EVENT_RECORD_STORED"


class RecordNotification(Payload, frozen=True, kw_only=True):
    """A message or event was stored."""

    entity_id: str
    record_status: RecordStatus
    processing_mode: ProcessingMode
    channel_identity: ChannelIdentity
    contact_id: str = ""
    conversation_id: str = ""
    reason: Reason | UnsetType = UNSET


class SmartConversationNotification(Payload, frozen=True, kw_only=True):
    """What machines made of a message. Raised by nothing here: the models are not part of this product."""

    contact_id: str = ""
    #: The identity alone, in this one payload.
    channel_identity: str
    channel: ChannelName
    message_id: str
    conversation_id: str = ""
    #: A JSON object: sentiment, intent, image, personal data, offence.
    analysis_results: Raw


class MessageBatchData(Payload, frozen=True, kw_only=True):
    """When a batch of messages is to go, and what its sender said about it."""

    send_after: str
    #: A JSON object.
    batch_metadata: Raw = field(default_factory=lambda: Raw(b"{}"))


class BatchAdditionalData(Payload, frozen=True, kw_only=True):
    """What depends on the kind of batch."""

    message_batch_data: MessageBatchData


class BatchStatusUpdate(Payload, frozen=True, kw_only=True):
    """A batch moved on. Raised by nothing here: the batch API is not part of this product."""

    batch_id: str
    batch_status: str
    batch_type: str = "BATCH_TYPE_MESSAGES"
    additional_data: BatchAdditionalData


class EndpointSuspension(Payload, frozen=True, kw_only=True):
    """An endpoint of the project takes nothing for long: it is tried by the hour until it does (our extension)."""

    #: Of the endpoint, like the next two.
    app_id: str
    #: "" for the URLs of messages.
    webhook_id: str
    endpoint: str
    failing_since: str
    #: Callbacks that wait for it now.
    waiting: int
    #: Of the last failure; 0: no answer.
    last_status: int
    last_error: str


class WebhookTest(Payload, frozen=True, kw_only=True):
    """A callback without a meaning, sent on demand (our extension)."""

    webhook_id: str


#: The payload key and payload of each trigger. The key tells receivers which trigger it was.
PAYLOADS: Final[Mapping[Trigger, tuple[str, type[Payload]]]] = {
    Trigger.MESSAGE_DELIVERY: ("message_delivery_report", DeliveryReport),
    Trigger.MESSAGE_SUBMIT: ("message_submit_notification", SubmitNotification),
    Trigger.MESSAGE_INBOUND: ("message", InboundMessage),
    Trigger.EVENT_DELIVERY: ("event_delivery_report", EventDeliveryReport),
    Trigger.EVENT_INBOUND: ("event", InboundEvent),
    Trigger.SMART_CONVERSATION: ("smart_conversation_notification", SmartConversationNotification),
    Trigger.SMART_CONVERSATIONS: ("smart_conversation_notification", SmartConversationNotification),
    Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION: ("message_redaction", InboundMessage),
    Trigger.CONVERSATION_START: ("conversation_start_notification", ConversationNotification),
    Trigger.CONVERSATION_STOP: ("conversation_stop_notification", ConversationNotification),
    Trigger.CONVERSATION_DELETE: ("conversation_delete_notification", ConversationNotification),
    Trigger.CONTACT_CREATE: ("contact_create_notification", ContactNotification),
    Trigger.CONTACT_DELETE: ("contact_delete_notification", ContactNotification),
    Trigger.CONTACT_MERGE: ("contact_merge_notification", ContactMerge),
    Trigger.CONTACT_UPDATE: ("contact_update_notification", ContactNotification),
    Trigger.CONTACT_IDENTITIES_DUPLICATION: (
        "duplicated_contact_identities_notification",
        DuplicatedIdentities,
    ),
    Trigger.UNSUPPORTED: ("unsupported_callback", UnsupportedCallback),
    Trigger.OPT_IN: ("opt_in_notification", ConsentNotification),
    Trigger.OPT_OUT: ("opt_out_notification", ConsentNotification),
    Trigger.CAPABILITY: ("capability_notification", CapabilityNotification),
    Trigger.CHANNEL_EVENT: ("channel_event_notification", ChannelEventNotification),
    Trigger.RECORD_NOTIFICATION: ("record_notification", RecordNotification),
    Trigger.BATCH_STATUS_UPDATE: ("batch_status_update_notification", BatchStatusUpdate),
    Trigger.ENDPOINT_SUSPENDED: ("endpoint_suspended_notification", EndpointSuspension),
    Trigger.WEBHOOK_TEST: ("webhook_test_notification", WebhookTest),
}


def _body(trigger: Trigger, key: str, payload: type[Payload]) -> Callable[..., Struct]:
    """The envelope (conversation-api 9.3) around one payload. Its fields are positional, in the order of the wire."""
    return defstruct(
        trigger.title().replace("_", "") + "Body",
        [
            ("app_id", str),
            ("project_id", str),
            ("accepted_time", str),
            ("event_time", str),
            (key, payload),
            ("message_metadata", str),
            ("correlation_id", str),
        ],
        module=__name__,
        frozen=True,
    )


#: The whole body of each trigger, as a struct type.
BODIES: Final[Mapping[Trigger, Callable[..., Struct]]] = {
    trigger: _body(trigger, key, payload) for trigger, (key, payload) in PAYLOADS.items()
}
#: Delivery reports are the most of what is sent, and hold strings and enums only.
_delivery_report_body: Final = BODIES[Trigger.MESSAGE_DELIVERY]


def body(
    trigger: Trigger,
    payload: Payload,
    *,
    app_id: str,
    project_id: str,
    accepted_at: datetime,
    event_at: datetime,
    message_metadata: str = "",
    correlation_id: str = "",
) -> bytes:
    """The bytes of a callback of any trigger. `app_id` is "" in contact callbacks.

    Raises TypeError if the payload is not the trigger's.
    """
    expected = PAYLOADS[trigger][1]
    if type(payload) is not expected:
        raise TypeError(f"{trigger} carries {expected.__name__}, not {type(payload).__name__}")
    return encode_content(
        BODIES[trigger](
            app_id,
            project_id,
            timestamp(accepted_at),
            timestamp(event_at),
            payload,
            message_metadata,
            correlation_id,
        )
    )


def delivery_report(
    *,
    app_id: str,
    project_id: str,
    message_id: str,
    status: Status,
    identity: ChannelIdentity,
    accepted_at: datetime,
    event_at: datetime,
    mode: ProcessingMode,
    reason: Reason | None = None,
    metadata: str = "",
    channel_metadata: Mapping[str, str] | None = None,
    correlation_id: str = "",
    contact_id: str = "",
    conversation_id: str = "",
) -> bytes:
    """MESSAGE_DELIVERY. `metadata` is the send's `message_metadata`; the reason is told only where one belongs."""
    report = DeliveryReport(
        message_id=message_id,
        conversation_id=conversation_id,
        status=status,
        channel_identity=identity,
        contact_id=contact_id,
        reason=_reason_of(status, reason),
        metadata=metadata,
        processing_mode=mode,
    )
    return encode(
        _delivery_report_body(
            app_id,
            project_id,
            timestamp(accepted_at),
            timestamp(event_at),
            report,
            channel_metadata_text(channel_metadata),
            correlation_id,
        )
    )


def submit_notification(
    *,
    app_id: str,
    project_id: str,
    message_id: str,
    identity: ChannelIdentity,
    message: AppMessage,
    accepted_at: datetime,
    event_at: datetime,
    mode: ProcessingMode,
    metadata: str = "",
    correlation_id: str = "",
    contact_id: str = "",
    conversation_id: str = "",
) -> bytes:
    """MESSAGE_SUBMIT: the message as it was submitted to the channel of `identity`."""
    return body(
        Trigger.MESSAGE_SUBMIT,
        SubmitNotification(
            message_id=message_id,
            conversation_id=conversation_id,
            channel_identity=identity,
            contact_id=contact_id,
            submitted_message=message,
            metadata=metadata,
            processing_mode=mode,
        ),
        app_id=app_id,
        project_id=project_id,
        accepted_at=accepted_at,
        event_at=event_at,
        correlation_id=correlation_id,
    )


def inbound_message(
    *,
    app_id: str,
    project_id: str,
    message_id: str,
    identity: ChannelIdentity,
    message: ContactMessage,
    accepted_at: datetime,
    event_at: datetime,
    mode: ProcessingMode,
    sender_id: str = "",
    channel_metadata: Mapping[str, str] | None = None,
    metadata: str = "",
    conversation_metadata: Raw | None = None,
    correlation_id: str = "",
    contact_id: str = "",
    conversation_id: str = "",
    injected: bool = False,
    redacted: bool = False,
) -> bytes:
    """MESSAGE_INBOUND, or its redaction.

    `metadata` is the `message_metadata` of the message this one replies to; without it the channel's facts stand there.
    """
    return body(
        Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION if redacted else Trigger.MESSAGE_INBOUND,
        InboundMessage(
            id=message_id,
            contact_message=message,
            channel_identity=identity,
            conversation_id=conversation_id,
            contact_id=contact_id,
            metadata=metadata or channel_metadata_text(channel_metadata),
            accept_time=timestamp(accepted_at),
            sender_id=sender_id,
            processing_mode=mode,
            injected=injected,
        ),
        app_id=app_id,
        project_id=project_id,
        accepted_at=accepted_at,
        event_at=event_at,
        message_metadata="" if conversation_metadata is None else encode_content(conversation_metadata).decode(),
        correlation_id=correlation_id,
    )


def event_delivery_report(
    *,
    app_id: str,
    project_id: str,
    event_id: str,
    status: Status,
    identity: ChannelIdentity,
    accepted_at: datetime,
    event_at: datetime,
    mode: ProcessingMode,
    reason: Reason | None = None,
    metadata: str = "",
    correlation_id: str = "",
    contact_id: str = "",
) -> bytes:
    """EVENT_DELIVERY. `metadata` is the send's `event_metadata`."""
    return body(
        Trigger.EVENT_DELIVERY,
        EventDeliveryReport(
            event_id=event_id,
            status=status,
            channel_identity=identity,
            contact_id=contact_id,
            reason=_reason_of(status, reason),
            metadata=metadata,
            processing_mode=mode,
        ),
        app_id=app_id,
        project_id=project_id,
        accepted_at=accepted_at,
        event_at=event_at,
        correlation_id=correlation_id,
    )


def inbound_event(
    *,
    app_id: str,
    project_id: str,
    event_id: str,
    identity: ChannelIdentity,
    event: ContactEvent | ContactMessageEvent,
    accepted_at: datetime,
    event_at: datetime,
    mode: ProcessingMode,
    correlation_id: str = "",
    contact_id: str = "",
    conversation_id: str = "",
) -> bytes:
    """EVENT_INBOUND, of either group of events (conversation-api 6.2)."""
    return body(
        Trigger.EVENT_INBOUND,
        InboundEvent(
            id=event_id,
            contact_event=event if isinstance(event, ContactEvent) else UNSET,
            contact_message_event=event if isinstance(event, ContactMessageEvent) else UNSET,
            channel_identity=identity,
            contact_id=contact_id,
            conversation_id=conversation_id,
            accept_time=timestamp(accepted_at),
            processing_mode=mode,
        ),
        app_id=app_id,
        project_id=project_id,
        accepted_at=accepted_at,
        event_at=event_at,
        correlation_id=correlation_id,
    )


def channel_metadata_text(facts: Mapping[str, str] | None) -> str:
    """A channel's facts as the JSON string of `message_metadata` and `message.metadata` (7.5); "" without any.

    The number of parts is a number on the wire; what is known to the contract comes first, in its order.
    """
    if not facts:
        return ""
    known: dict[str, str | int] = {name: facts[name] for name in _CHANNEL_FACTS if name in facts}
    known.update(facts)
    parts = facts.get("number_of_message_parts", "")
    if parts.isdecimal():
        known["number_of_message_parts"] = int(parts)
    return encode(known).decode()


_CHANNEL_FACTS: Final = ("sms_batch_id", "number_of_message_parts", "operator")
_WITH_REASON: Final = frozenset({Status.FAILED, Status.SWITCHING_CHANNEL})


def _reason_of(status: Status, reason: Reason | None) -> Reason | UnsetType:
    return reason if reason is not None and status in _WITH_REASON else UNSET
