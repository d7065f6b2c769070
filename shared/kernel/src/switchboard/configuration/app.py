"""Apps: what a project's clients configure (conversation-api 4.2)."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Final

from msgspec import Struct

from switchboard.configuration.credential import Credential
from switchboard.identity import ChannelName
from switchboard.ids import AppId, ProjectId
from switchboard.records import ProcessingMode
from switchboard.rules.consent import ConsentSettings
from switchboard.rules.progress import OnUnknown

#: Messages one app may have waiting (conversation-api 13).
OUTBOUND_LIMIT: Final = 500_000


class ReportView(StrEnum):
    """Whether callbacks show conversation metadata."""

    NONE = "NONE"
    FULL = "FULL"


class RetentionType(StrEnum):
    MESSAGE_EXPIRE_POLICY = "MESSAGE_EXPIRE_POLICY"
    CONVERSATION_EXPIRE_POLICY = "CONVERSATION_EXPIRE_POLICY"
    PERSIST_RETENTION_POLICY = "PERSIST_RETENTION_POLICY"


class RetentionPolicy(Struct, frozen=True):
    """How long messages are kept."""

    retention_type: RetentionType = RetentionType.MESSAGE_EXPIRE_POLICY
    ttl_days: int = 180


class DispatchRetentionPolicy(RetentionPolicy, frozen=True):
    """The same in dispatch mode, where 0 days means: not stored."""

    ttl_days: int = 0


class Enabled(Struct, frozen=True):
    enabled: bool = False


class CallbackSettings(Struct, frozen=True):
    #: Signs callbacks that go to a message's own `callback_url`. "": they are not signed.
    secret_for_overridden_callback_urls: str = ""

    def __repr__(self) -> str:
        return "CallbackSettings()"


class RetrySettings(Struct, frozen=True):
    #: Seconds from the first failure for now during which one channel is tried again: 30 to 3,600.
    retry_duration: int = 3600


class ReportFallback(Struct, frozen=True):
    """Whether silence of a channel switches to the next."""

    enabled: bool = False
    #: Seconds to wait for a positive report: 10 to 259,200. 0 while never set.
    delivery_report_waiting_time: int = 0


class RateLimits(Struct, frozen=True):
    """Per second. Given by the operator, read by clients."""

    inbound: int = 100
    outbound: int = 20
    webhooks: int = 100


class AppSettings(Struct, frozen=True, kw_only=True):
    """What an app says about itself, without ids and secrets."""

    display_name: str
    conversation_metadata_report_view: ReportView = ReportView.NONE
    retention_policy: RetentionPolicy = RetentionPolicy()
    dispatch_retention_policy: DispatchRetentionPolicy = DispatchRetentionPolicy()
    processing_mode: ProcessingMode = ProcessingMode.DISPATCH
    smart_conversation: Enabled = Enabled()
    message_retry_settings: RetrySettings = RetrySettings()
    delivery_report_based_fallback: ReportFallback = ReportFallback()
    #: What to do when nobody can tell whether a channel took a message (our extension).
    on_unknown: OnUnknown = OnUnknown.FAIL
    rate_limits: RateLimits = RateLimits()
    persist_message_status: Enabled = Enabled()
    message_search: Enabled = Enabled()
    #: Consent management, switched on by the operator; no part of the API's app object (conversation-api 14).
    consent: ConsentSettings = ConsentSettings()


class App(AppSettings, frozen=True, kw_only=True, dict=True):
    """An app with its secrets in clear. Never logged."""

    id: AppId
    project_id: ProjectId
    #: In the order of the app's channel priority.
    channel_credentials: tuple[Credential, ...] = ()
    callback_settings: CallbackSettings = CallbackSettings()

    @cached_property
    def credentials(self) -> Mapping[ChannelName, Credential]:
        """The credential to use for each channel, in the app's order. Of several the default one, else the first."""
        found: dict[ChannelName, Credential] = {}
        for credential in self.channel_credentials:
            if credential.channel not in found or _is_default(credential):
                found[credential.channel] = credential
        return found

    @property
    def fallback_wait_seconds(self) -> int | None:
        """How long to wait for a positive report before the next channel is tried. None: as long as it takes."""
        fallback = self.delivery_report_based_fallback
        return fallback.delivery_report_waiting_time if fallback.enabled else None

    @property
    def retention(self) -> RetentionPolicy:
        """The policy of the app's mode."""
        if self.processing_mode is ProcessingMode.DISPATCH:
            return self.dispatch_retention_policy
        return self.retention_policy

    def __repr__(self) -> str:
        return f"App({self.id!r})"


def _is_default(credential: Credential) -> bool:
    line = credential.line_credentials or credential.line_enterprise_credentials
    return bool(line and line.is_default)
