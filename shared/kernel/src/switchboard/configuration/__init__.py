"""What apps, webhooks, access keys and provider accounts are (`types`), kept (`store`) and read quickly (`cache`)."""

from switchboard.configuration.app import (
    App,
    AppSettings,
    CallbackSettings,
    DispatchRetentionPolicy,
    Enabled,
    RateLimits,
    ReportFallback,
    ReportView,
    RetentionPolicy,
    RetentionType,
    RetrySettings,
)
from switchboard.configuration.cache import Configuration
from switchboard.configuration.credential import Credential
from switchboard.configuration.store import ConfigurationStore, Conflict
from switchboard.configuration.types import AccessKey, ClientCredentials, ProviderAccount, TargetType, Webhook

__all__ = [
    "AccessKey",
    "App",
    "AppSettings",
    "CallbackSettings",
    "ClientCredentials",
    "Configuration",
    "ConfigurationStore",
    "Conflict",
    "Credential",
    "DispatchRetentionPolicy",
    "Enabled",
    "ProviderAccount",
    "RateLimits",
    "ReportFallback",
    "ReportView",
    "RetentionPolicy",
    "RetentionType",
    "RetrySettings",
    "TargetType",
    "Webhook",
]
