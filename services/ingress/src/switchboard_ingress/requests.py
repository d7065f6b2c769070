"""Bodies of requests, as clients write them (conversation-api 4). What is wrong in them is found in `checks`."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import field

from switchboard.configuration.app import (
    CallbackSettings,
    DispatchRetentionPolicy,
    Enabled,
    ReportFallback,
    ReportView,
    RetentionPolicy,
    RetrySettings,
)
from switchboard.configuration.credential import Credential
from switchboard.configuration.types import ClientCredentials, TargetType
from switchboard.content import AppEvent, AppMessage, ContactMessage
from switchboard.records import ProcessingMode
from switchboard.rules.consent import ContentType
from switchboard.rules.progress import OnUnknown
from switchboard.rules.route import StepWish
from switchboard.store.callbacks import REPLAY_PER_SECOND, CallbackState
from switchboard.trigger import Trigger
from switchboard.wire import Wire


class RecipientIdentity(Wire, frozen=True):
    channel: str
    identity: str


class IdentifiedBy(Wire, frozen=True):
    channel_identities: tuple[RecipientIdentity, ...]


class Recipient(Wire, frozen=True):
    """Exactly one of the two."""

    contact_id: str | None = None
    identified_by: IdentifiedBy | None = None


class MetadataStrategy(StrEnum):
    REPLACE = "REPLACE"
    MERGE_PATCH = "MERGE_PATCH"


class Queue(StrEnum):
    NORMAL_PRIORITY = "NORMAL_PRIORITY"
    HIGH_PRIORITY = "HIGH_PRIORITY"


class ProcessingStrategy(StrEnum):
    DEFAULT = "DEFAULT"
    DISPATCH_ONLY = "DISPATCH_ONLY"


class SendRequest(Wire, frozen=True):
    """`POST /messages:send`."""

    app_id: str
    recipient: Recipient
    message: AppMessage
    callback_url: str | None = None
    channel_priority_order: tuple[str, ...] = ()
    channel_properties: dict[str, str] = field(default_factory=dict)
    message_metadata: str | None = None
    #: Kept as it is.
    conversation_metadata: dict[str, Any] | None = None
    conversation_metadata_update_strategy: MetadataStrategy | None = None
    queue: Queue | None = None
    #: `<seconds>s`.
    ttl: str | None = None
    processing_strategy: ProcessingStrategy | None = None
    correlation_id: str | None = None
    message_content_type: ContentType | None = None
    #: What to wait for on single channels, and how long (our extension).
    channel_steps: tuple[StepWish, ...] = ()
    #: What to do when nobody can tell whether a channel took it; absent: what the app says (our extension).
    on_unknown: OnUnknown | None = None


class SendEventRequest(Wire, frozen=True):
    """`POST /events:send`."""

    app_id: str
    event: AppEvent
    recipient: Recipient
    callback_url: str | None = None
    #: One channel at most: events are not failed over.
    channel_priority_order: tuple[str, ...] = ()
    event_metadata: str | None = None
    queue: Queue | None = None


class CapabilityRequest(Wire, frozen=True):
    """`POST /capability:query`."""

    app_id: str
    recipient: Recipient
    #: The client's own name of the query; made up if there is none.
    request_id: str | None = None


class MessagePatch(Wire, frozen=True):
    """`PATCH /messages/{message_id}`."""

    metadata: str


class AppInput(Wire, frozen=True):
    """What of an app a client may write."""

    display_name: str = ""
    channel_credentials: tuple[Credential, ...] = ()
    conversation_metadata_report_view: ReportView = ReportView.NONE
    retention_policy: RetentionPolicy = RetentionPolicy()
    dispatch_retention_policy: DispatchRetentionPolicy = DispatchRetentionPolicy()
    #: Absent: as the installation says (`SWITCHBOARD_DEFAULT_PROCESSING_MODE`).
    processing_mode: ProcessingMode | None = None
    smart_conversation: Enabled = Enabled()
    callback_settings: CallbackSettings = CallbackSettings()
    message_retry_settings: RetrySettings = RetrySettings()
    delivery_report_based_fallback: ReportFallback = ReportFallback()
    on_unknown: OnUnknown = OnUnknown.FAIL
    persist_message_status: Enabled = Enabled()
    message_search: Enabled = Enabled()


class WebhookInput(Wire, frozen=True):
    """What of a webhook a client may write."""

    app_id: str = ""
    target: str = ""
    target_type: TargetType = TargetType.HTTP
    secret: str = ""
    triggers: tuple[Trigger, ...] = ()
    client_credentials: ClientCredentials | None = None
    #: Answers that end a callback's retries, of 4xx (our extension). None by default.
    ends_retries_on: tuple[int, ...] = ()


class SecretRotation(Wire, frozen=True):
    """`POST /webhooks/{webhook_id}:rotate-secret` (our extension)."""

    #: The new secret; absent: one is made. The one in use: only the overlap changes.
    secret: str = ""
    #: How long the one before signs too, `<seconds>s`, up to 30 days.
    overlap: str = "86400s"


class CallbackSelection(Wire, frozen=True):
    """Which callbacks of an app are resumed or given up (our extension)."""

    #: Absent: of all its webhooks, and of the URLs of messages.
    webhook_id: str = ""
    #: When it happened: from, and until before. Absent: from the first, and until now.
    start_time: datetime | None = None
    end_time: datetime | None = None


class Replay(CallbackSelection, frozen=True):
    """Which callbacks of an app are posted once more, and how (our extension)."""

    #: In which states; absent: all that are finished.
    states: tuple[CallbackState, ...] = ()
    #: Another URL than the webhook's.
    target: str = ""
    #: Callbacks a second.
    per_second: float = REPLAY_PER_SECOND


class ContactIdentity(Wire, frozen=True):
    channel: str
    identity: str
    #: Of channels whose identities belong to one app.
    app_id: str = ""


class ContactInput(Wire, frozen=True):
    """What of a contact a client may write."""

    channel_identities: tuple[ContactIdentity, ...] = ()
    channel_priority: tuple[str, ...] = ()
    display_name: str = ""
    email: str = ""
    external_id: str = ""
    metadata: str = ""
    language: str = "UNSPECIFIED"


class MergeStrategy(StrEnum):
    MERGE = "MERGE"


class ContactMergeRequest(Wire, frozen=True):
    """`POST /contacts/{destination_id}:merge`."""

    source_id: str
    strategy: MergeStrategy = MergeStrategy.MERGE


class ProfileRequest(Wire, frozen=True):
    """`POST /contacts:getChannelProfile`."""

    app_id: str
    recipient: Recipient
    channel: str


class ConversationInput(Wire, frozen=True):
    """What of a conversation a client may write."""

    app_id: str = ""
    contact_id: str = ""
    active: bool = True
    active_channel: str = "CHANNEL_UNSPECIFIED"
    metadata: str = ""
    #: Kept as it is.
    metadata_json: dict[str, Any] | None = None
    correlation_id: str = ""


class MessageDirection(StrEnum):
    TO_APP = "TO_APP"
    TO_CONTACT = "TO_CONTACT"


class InjectMessageRequest(Wire, frozen=True):
    """`POST /conversations/{conversation_id}:inject-message`."""

    accept_time: str
    direction: MessageDirection
    contact_id: str
    channel_identity: ContactIdentity
    app_message: AppMessage | None = None
    contact_message: ContactMessage | None = None
    metadata: str = ""
    sender_id: str = ""
    processing_mode: ProcessingMode = ProcessingMode.CONVERSATION


class InjectEventRequest(Wire, frozen=True):
    """`POST /conversations/{conversation_id}:inject-event`."""

    app_event: AppEvent
    accept_time: str
    conversation_id: str = ""
    contact_id: str = ""
    channel_identity: ContactIdentity | None = None
    processing_mode: ProcessingMode = ProcessingMode.CONVERSATION


class LastMessagesRequest(Wire, frozen=True):
    """`POST /messages:fetch-last-message`. Exactly one of the two lists."""

    channel_identities: tuple[str, ...] = ()
    contact_ids: tuple[str, ...] = ()
    app_id: str = ""
    messages_source: str = ""
    page_size: int = 0
    page_token: str = ""
    view: str = ""
    start_time: str = ""
    end_time: str = ""
    channel: str = ""
    direction: str = ""
