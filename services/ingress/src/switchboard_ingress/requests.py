"""Bodies of requests, as clients write them (conversation-api 4). What is wrong in them is found in `checks`."""

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
from switchboard.content import AppMessage
from switchboard.records import ProcessingMode
from switchboard.rules.progress import OnUnknown
from switchboard.rules.route import StepWish
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


class MessageContentType(StrEnum):
    CONTENT_UNKNOWN = "CONTENT_UNKNOWN"
    CONTENT_MARKETING = "CONTENT_MARKETING"
    CONTENT_NOTIFICATION = "CONTENT_NOTIFICATION"


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
    message_content_type: MessageContentType | None = None
    #: What to wait for on single channels, and how long (our extension).
    channel_steps: tuple[StepWish, ...] = ()
    #: What to do when nobody can tell whether a channel took it; absent: what the app says (our extension).
    on_unknown: OnUnknown | None = None


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
    processing_mode: ProcessingMode = ProcessingMode.DISPATCH
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
