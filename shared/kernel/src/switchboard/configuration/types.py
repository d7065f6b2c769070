"""Webhooks, access keys and provider accounts."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, ProjectId, WebhookId
from switchboard.trigger import Trigger
from switchboard.wire import Wire


class TargetType(StrEnum):
    """What becomes of callbacks: posted, or dropped."""

    HTTP = "HTTP"
    DISMISS = "DISMISS"
    #: Of old; taken and treated as HTTP.
    GRPC = "GRPC"


class TokenRequestType(StrEnum):
    """Where a webhook's client credentials are put when a token is asked for (conversation-api 10.2)."""

    BASIC = "BASIC"
    FORM = "FORM"


class ClientCredentials(Wire, frozen=True):
    """OAuth2 client credentials that callbacks need a token for."""

    client_id: str
    client_secret: str
    #: The token URL.
    endpoint: str
    scope: str | None = None
    response_type: str | None = None
    token_request_type: TokenRequestType | None = None

    def __repr__(self) -> str:
        return "ClientCredentials()"


class Webhook(Struct, frozen=True, kw_only=True):
    """Where callbacks of an app go, and which (conversation-api 9.1). Secrets are in clear: never logged."""

    id: WebhookId
    app_id: AppId
    project_id: ProjectId
    target: str
    triggers: tuple[Trigger, ...]
    target_type: TargetType = TargetType.HTTP
    #: Signing secrets, newest first: after a change the one before still verifies. Empty: not signed.
    secrets: tuple[str, ...] = ()
    client_credentials: ClientCredentials | None = None
    #: Until when the secrets before the newest sign too; None: until the next change.
    rotation_until: datetime | None = None
    #: Answers that end a callback's retries (our extension); by default none does.
    ends_retries_on: tuple[int, ...] = ()

    @property
    def secret(self) -> str:
        """The secret that signs now, or ""."""
        return self.secrets[0] if self.secrets else ""

    def __repr__(self) -> str:
        return f"Webhook({self.id!r})"


class AccessKey(Struct, frozen=True):
    """What a client calls the API with."""

    id: str
    project_id: ProjectId
    secret_hash: bytes
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"AccessKey({self.id!r})"


class ProviderAccount(Struct, frozen=True):
    """What an operator provides for a channel; apps claim it by name. Secrets are in clear: never logged."""

    key: AccountKey
    channel: ChannelName
    name: str
    #: An instance of the manifest's `account_settings`.
    settings: Any

    def __repr__(self) -> str:
        return f"ProviderAccount({self.key!r})"
