"""The facts of a channel, as data. If a service would ask `if channel == "SMS"`, a fact is missing here."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from msgspec import Struct
from pydantic import BaseModel

from switchboard.identity import ChannelName
from switchboard.status import Status


class AccountOwner(StrEnum):
    """Who owns what a channel sends through."""

    #: An operator object (provider account); an app's `claimed_identity` names one. SMS.
    OPERATOR = "operator"
    #: The app's own credential. TELEGRAM.
    APP = "app"


class Connection(StrEnum):
    """How a channel reaches its provider."""

    #: One HTTP exchange an attempt; facts arrive as webhooks.
    REQUEST = "request"
    #: A lasting session that carries both directions. SMPP.
    SESSION = "session"


class Support(StrEnum):
    """What becomes of one kind of content on a channel (conversation-api 7.3)."""

    NATIVE = "native"
    #: Becomes text by the shared rules of `switchboard.transcode`.
    TEXT = "text"
    UNSUPPORTED = "unsupported"


class CredentialField(Struct, frozen=True):
    """One field of a channel's credential object (conversation-api 8)."""

    name: str
    required: bool = True
    secret: bool = False


class CredentialSpec(Struct, frozen=True):
    """The credential object an app gives for a channel: its key and its fields."""

    key: str
    fields: tuple[CredentialField, ...]


class ReportMetadata(Struct, frozen=True):
    """What a channel adds to `message_metadata` of delivery reports (conversation-api 7.5)."""

    #: Under which key the id of the batch of parts stands.
    batch_id_key: str
    #: Under which key the number of parts stands, told only if the send had the property `parts_property`.
    parts_key: str
    parts_property: str


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything the services need to know about a channel without running it."""

    channel: ChannelName
    title: str
    owner: AccountOwner
    connection: Connection
    credentials: CredentialSpec
    #: Turns an identity as clients write it into the channel's own spelling. Raises ValueError with what is expected.
    normal_identity: Callable[[str], str]
    #: Identities belong to one app (conversation-api 7.2).
    app_scoped: bool = False
    #: What the channel reports after it took a message. Empty: acceptance is the end (SUBMITTED).
    receipts: frozenset[Status] = frozenset()
    #: How long receipts may come after acceptance. Afterwards the message ends SUBMITTED.
    horizon_seconds: int = 72 * 3600
    #: The provider stops trying when the TTL ends; TTL is passed to it.
    native_ttl: bool = False
    can_retract: bool = False
    #: The provider drops a second submission of one attempt id, so an unknown outcome may be sent again.
    deduplicates: bool = False
    #: Longest an attempt's send may take, all parts included, from the claim on.
    send_timeout_seconds: float = 15.0
    #: Kinds of content by the name of their field (`text_message` …). A kind not named is UNSUPPORTED.
    content: dict[str, Support]
    #: App events it carries, by the name of their field (`composing_event` …). Others fail with BAD_REQUEST.
    events: frozenset[str] = frozenset()
    #: It can say whether somebody can be reached (`TellsCapability`). Others answer CAPABILITY_UNKNOWN.
    tells_capability: bool = False
    #: It has no buttons: a choice is answered by typing its caption (conversation-api 7.5).
    answers_by_text: bool = False
    #: The property that names whom a message comes from, so that an answer comes from what was written to.
    sender_property: str = ""
    #: Keys of `channel_properties` this channel reads.
    properties: frozenset[str] = frozenset()
    #: What one message costs in the provider's unit, counted by `render.units`, per second and account. None: no limit.
    rate_per_second: float | None = None
    #: The same where it is a setting of the account: reads the rate over all binds and instances from an instance of
    #: `account_settings`, None for no limit. Goes before `rate_per_second`.
    account_rate: Callable[[Any], float | None] | None = None
    #: What the channel adds to its delivery reports, where it adds anything of its own.
    report_metadata: ReportMetadata | None = None
    #: What an operator writes down for a provider account (OPERATOR channels). Secrets are `SecretStr`.
    account_settings: type[BaseModel] | None = None

    def rate_of(self, settings: Any) -> float | None:
        """Units a second that an account with these settings (None: not known) may send. None: no limit."""
        if self.account_rate is not None and settings is not None:
            return self.account_rate(settings)
        return self.rate_per_second
