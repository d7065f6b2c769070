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
from switchboard.content import AppMessage, ContactMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, CallbackId, ContactId, MessageId, ProjectId
from switchboard.reason import Reason
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
DispatchRecord = DispatchMessage | RetractMessage
