"""What travels on the topics: orders (`DispatchMessage`) and facts in the past tense (`MessageAccepted`).

Every record is one JSON object with its type under "type"; the same name is in the record header `type`, so that a
consumer can tell an unknown type from a broken record without decoding it. A new field is optional with a default; a
new meaning is a new type. Times are UTC.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Raw, Struct, field

from switchboard.channel.outcome import Outcome
from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.content import AppEvent, AppMessage, ContactEvent, ContactMessage, ContactMessageEvent
from switchboard.conversation import Conversation
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, CallbackId, ChangeId, ContactId, MessageId, ProjectId
from switchboard.reason import Reason
from switchboard.rules.consent import ContentType
from switchboard.rules.progress import OnUnknown
from switchboard.rules.route import StepWish
from switchboard.status import Status
from switchboard.trigger import Trigger


class ProcessingMode(StrEnum):
    """Whether contacts and conversations are kept (conversation-api 12.1)."""

    CONVERSATION = "CONVERSATION"
    DISPATCH = "DISPATCH"


class RecordBase(Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """What all records share: a tag, and defaults left out on the wire."""


class MessageAccepted(RecordBase, frozen=True):
    """A client's send was validated and got its id. The 2xx says this record is on all in-sync replicas."""

    message_id: MessageId
    project_id: ProjectId
    app_id: AppId
    accepted_at: datetime
    message: AppMessage
    mode: ProcessingMode
    #: The recipient as addressed, normalised, in the order given. Empty if a contact was named.
    identities: tuple[ChannelIdentity, ...] = ()
    contact_id: ContactId | None = None
    channel_priority_order: tuple[ChannelName, ...] = ()
    channel_properties: dict[str, str] = field(default_factory=dict)
    #: The send's `message_metadata`: comes back as `metadata` in its delivery reports.
    metadata: str = ""
    #: A JSON object, as the client gave it.
    conversation_metadata: dict[str, Any] | None = None
    #: The conversation metadata is a merge patch (MERGE_PATCH), else a replacement.
    patches_metadata: bool = False
    correlation_id: str = ""
    callback_url: str = ""
    high_priority: bool = False
    ttl_seconds: int | None = None
    #: What the request asks of single channels (our extension).
    channel_steps: tuple[StepWish, ...] = ()
    #: What to do when an outcome stays unknown; None: what the app says (our extension).
    on_unknown: OnUnknown | None = None
    #: The caller's W3C trace context, linked from the message's own trace.
    traceparent: str = ""
    #: What kind of message it is, for consent only (conversation-api 14).
    content_type: ContentType = ContentType.CONTENT_UNKNOWN
    #: Answers a person's keyword: consent does not stop it.
    is_confirmation: bool = False


class DispatchMessage(RecordBase, frozen=True):
    """Submit this attempt, if it is still planned and `send_before` has not passed."""

    message_id: MessageId
    step: int
    submission: int
    project_id: ProjectId
    app_id: AppId
    account: AccountKey
    identity: ChannelIdentity
    message: AppMessage
    send_before: datetime
    channel_properties: dict[str, str] = field(default_factory=dict)
    #: When the message's TTL ends, for channels that can tell their provider. None: no TTL was asked for.
    ttl_ends_at: datetime | None = None


class RetractMessage(RecordBase, frozen=True):
    """Take back what a channel accepted but has not delivered, where the channel can."""

    message_id: MessageId
    step: int
    submission: int
    app_id: AppId
    account: AccountKey
    identity: ChannelIdentity
    provider_ids: tuple[str, ...]


class AttemptFinished(RecordBase, frozen=True):
    """An attempt has its outcome, and the outcome is recorded."""

    message_id: MessageId
    step: int
    submission: int
    outcome: Outcome
    finished_at: datetime


class ReceiptReceived(RecordBase, frozen=True):
    """The provider told more about one part of an attempt that it had taken."""

    message_id: MessageId
    step: int
    submission: int
    #: The part's id as the attempt's outcome has it.
    provider_id: str
    #: DELIVERED, READ or FAILED.
    status: Status
    #: When it happened, as the provider tells it, else when we heard of it.
    event_at: datetime
    reason: Reason | None = None
    #: Facts of the channel for `message_metadata`, e.g. the operator (conversation-api 7.5).
    channel_metadata: dict[str, str] = field(default_factory=dict)


class TimerFired(RecordBase, frozen=True):
    """A deadline of the message passed. Decides nothing: the handler looks which deadlines really have."""

    message_id: MessageId
    due_at: datetime


class StepAbandoned(RecordBase, frozen=True):
    """A planned attempt will not be submitted: its gate closed with another channel left, or its lane was purged."""

    message_id: MessageId
    step: int
    submission: int
    reason: Reason
    #: The whole message ends, whatever channels are left (an operator purged the lane).
    fails_message: bool = False


class UnknownResolved(RecordBase, frozen=True):
    """An operator found out what became of an unknown attempt."""

    message_id: MessageId
    step: int
    submission: int
    #: DELIVERED or FAILED.
    status: Status
    reason: Reason | None = None


class MessageReceived(RecordBase, frozen=True):
    """A person wrote to an app."""

    #: Derived from the account and the provider's id: the same message heard twice has one id.
    message_id: MessageId
    project_id: ProjectId
    app_id: AppId
    identity: ChannelIdentity
    message: ContactMessage
    provider_id: str
    accepted_at: datetime
    event_at: datetime
    #: The number or id the person wrote to, where the channel has one.
    sender_id: str = ""
    #: Facts of the channel for the message's `metadata`, e.g. the operator.
    channel_metadata: dict[str, str] = field(default_factory=dict)


class EventAccepted(RecordBase, frozen=True):
    """A client's event for a person was validated and got its id."""

    event_id: MessageId
    project_id: ProjectId
    app_id: AppId
    accepted_at: datetime
    event: AppEvent
    mode: ProcessingMode
    #: The recipient as addressed, normalised, in the order given. Empty if a contact was named.
    identities: tuple[ChannelIdentity, ...] = ()
    contact_id: ContactId | None = None
    #: One channel at most: an event is not failed over.
    channel_priority_order: tuple[ChannelName, ...] = ()
    #: The send's `event_metadata`: comes back as `metadata` in its delivery report.
    metadata: str = ""
    callback_url: str = ""


class DispatchEvent(RecordBase, frozen=True):
    """Carry this event out, if it is still planned and `send_before` has not passed."""

    event_id: MessageId
    app_id: AppId
    account: AccountKey
    identity: ChannelIdentity
    event: AppEvent
    send_before: datetime


class EventFinished(RecordBase, frozen=True):
    """A channel was given an event: how that went."""

    event_id: MessageId
    outcome: Outcome
    finished_at: datetime


class EventOverdue(RecordBase, frozen=True):
    """An event's deadline passed. Decides nothing: the handler looks whether it really has."""

    event_id: MessageId
    due_at: datetime


class CapabilityAsked(RecordBase, frozen=True):
    """A client wants to know on which channels somebody can be reached."""

    #: Ours; the client's own name for it is `request_id`.
    query_id: MessageId
    project_id: ProjectId
    app_id: AppId
    asked_at: datetime
    request_id: str
    mode: ProcessingMode
    identities: tuple[ChannelIdentity, ...] = ()
    contact_id: ContactId | None = None


class AskCapability(RecordBase, frozen=True):
    """Ask the provider about one identity. It may be asked twice."""

    query_id: MessageId
    project_id: ProjectId
    app_id: AppId
    account: AccountKey
    identity: ChannelIdentity
    request_id: str
    asked_at: datetime
    contact_id: ContactId | None = None


class CapabilityAnswered(RecordBase, frozen=True):
    """What a channel says about one identity."""

    query_id: MessageId
    project_id: ProjectId
    app_id: AppId
    identity: ChannelIdentity
    request_id: str
    asked_at: datetime
    answered_at: datetime
    #: As the contract spells it: CAPABILITY_FULL, NO_CAPABILITY …
    status: str
    features: tuple[str, ...] = ()
    reason: Reason | None = None
    contact_id: ContactId | None = None


class EventReceived(RecordBase, frozen=True):
    """A person did something besides writing: exactly one of the two events."""

    #: Derived from the account and the provider's id, as ids of messages are.
    event_id: MessageId
    project_id: ProjectId
    app_id: AppId
    identity: ChannelIdentity
    accepted_at: datetime
    event_at: datetime
    contact_event: ContactEvent | None = None
    contact_message_event: ContactMessageEvent | None = None


class OptOutReceived(RecordBase, frozen=True):
    """A person left, told by the channel or learned from its refusals."""

    opt_out_id: MessageId
    project_id: ProjectId
    app_id: AppId
    identity: ChannelIdentity
    accepted_at: datetime
    event_at: datetime


class OptInReceived(RecordBase, frozen=True):
    """A person came back, told by the channel."""

    opt_in_id: MessageId
    project_id: ProjectId
    app_id: AppId
    identity: ChannelIdentity
    accepted_at: datetime
    event_at: datetime


class UnsupportedReceived(RecordBase, frozen=True):
    """A channel told something that has no mapping."""

    unsupported_id: MessageId
    project_id: ProjectId
    app_id: AppId
    #: Its identity is "" where the channel does not say whom it is about.
    identity: ChannelIdentity
    #: The channel's own payload, as text.
    payload: str
    accepted_at: datetime
    event_at: datetime


class ChannelEvent(RecordBase, frozen=True):
    """Something happened to an account of an app."""

    channel_event_id: MessageId
    project_id: ProjectId
    app_id: AppId
    channel: ChannelName
    event_type: str
    accepted_at: datetime
    event_at: datetime
    additional_data: dict[str, Any] = field(default_factory=dict)


class Change(RecordBase, frozen=True, kw_only=True):
    """What facts of API writes share. The router tells them as callbacks."""

    change_id: ChangeId
    project_id: ProjectId
    at: datetime
    #: Of the callback, within the contact's or conversation's.
    sequence: int


class ContactCreated(Change, frozen=True, kw_only=True):
    """A client made a contact."""

    contact: Contact
    #: Identities it shares with other contacts. Told with the next sequence number.
    duplicates: tuple[DuplicatedIdentity, ...] = ()


class ContactUpdated(Change, frozen=True, kw_only=True):
    """A client changed a contact."""

    contact: Contact
    #: Identities it shares with other contacts now and did not before.
    duplicates: tuple[DuplicatedIdentity, ...] = ()


class ContactDeleted(Change, frozen=True, kw_only=True):
    """A client deleted a contact: this is what it was."""

    contact: Contact


class ContactMerged(Change, frozen=True, kw_only=True):
    """A client made one contact of two."""

    #: As it is after the merge.
    preserved: Contact
    deleted: Contact


class ConversationStarted(Change, frozen=True, kw_only=True):
    """A client started a conversation."""

    conversation: Conversation


class ConversationStopped(Change, frozen=True, kw_only=True):
    """A conversation is not active any more: a client stopped it, started another, or merged its contact."""

    conversation: Conversation


class ConversationDeleted(Change, frozen=True, kw_only=True):
    """A client deleted a conversation, or its contact."""

    conversation: Conversation


class DeliverCallback(RecordBase, frozen=True):
    """Post this body to this endpoint, in the order of `sequence` within `stream`, until it is taken or 24 h are up."""

    callback_id: CallbackId
    project_id: ProjectId
    app_id: AppId
    trigger: Trigger
    #: A webhook's id, or "" when `target` overrides it.
    webhook_id: str
    #: The overriding callback URL of the message, else "".
    target: str
    #: What is kept in order: the message's, contact's or conversation's id.
    stream: str
    #: Rises within a stream. An endpoint that does not ask for every trigger sees gaps.
    sequence: int
    event_at: datetime
    #: The bytes to post. Kept raw: they are signed as they are.
    body: Raw


AttemptsRecord = AttemptFinished | ReceiptReceived | TimerFired | StepAbandoned | UnknownResolved
#: What else comes by `attempts`: how events to people went. They have no attempts.
EventsRecord = EventFinished | EventOverdue
AcceptedRecord = MessageAccepted | EventAccepted | CapabilityAsked
DispatchRecord = DispatchMessage | RetractMessage | DispatchEvent | AskCapability
InboundRecord = (
    MessageReceived
    | EventReceived
    | OptInReceived
    | OptOutReceived
    | CapabilityAnswered
    | ChannelEvent
    | UnsupportedReceived
)
ChangesRecord = (
    ContactCreated
    | ContactUpdated
    | ContactDeleted
    | ContactMerged
    | ConversationStarted
    | ConversationStopped
    | ConversationDeleted
)
