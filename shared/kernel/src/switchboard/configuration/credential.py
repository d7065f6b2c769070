"""Channel credentials: one object a channel, as the contract names them (conversation-api 8)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard.identity import ChannelName
from switchboard.wire import Wire


class StaticBearer(Wire, frozen=True):
    #: The provider account's name on SMS, the bot's or agent's id elsewhere.
    claimed_identity: str
    token: str


class SmsCredentials(Wire, frozen=True):
    sms_app_id: str


class StaticToken(Wire, frozen=True):
    token: str


class BasicAuth(Wire, frozen=True):
    username: str
    password: str


class MmsCredentials(Wire, frozen=True):
    account_id: str
    api_key: str
    basic_auth: BasicAuth | None = None
    default_sender: str | None = None


class InstagramCredentials(Wire, frozen=True):
    token: str
    business_account_id: str | None = None


class TelegramCredentials(Wire, frozen=True):
    token: str


class KakaotalkCredentials(Wire, frozen=True):
    kakaotalk_plus_friend_id: str
    kakaotalk_sender_key: str


class KakaotalkchatCredentials(Wire, frozen=True):
    kakaotalk_plus_friend_id: str
    api_key: str | None = None


class LineCredentials(Wire, frozen=True):
    token: str
    secret: str
    is_default: bool | None = None


class LineAccount(Wire, frozen=True):
    token: str
    secret: str


class LineEnterpriseCredentials(Wire, frozen=True):
    """Exactly one of the two countries."""

    line_japan: LineAccount | None = None
    line_thailand: LineAccount | None = None
    is_default: bool | None = None


class WechatCredentials(Wire, frozen=True):
    app_id: str
    app_secret: str
    token: str
    aes_key: str


class ApplebcCredentials(Wire, frozen=True):
    business_chat_account_id: str
    merchant_id: str | None = None
    apple_pay_certificate_reference: str | None = None
    apple_pay_certificate_password: str | None = None


class CredentialStatus(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    FAILING = "FAILING"


class CredentialState(Struct, frozen=True):
    """Whether the channel can be used with these credentials."""

    status: CredentialStatus = CredentialStatus.PENDING
    description: str = ""


class Credential(Wire, frozen=True, kw_only=True):
    """An app's way into one channel: exactly one of the objects, the one its channel takes."""

    channel: ChannelName
    static_bearer: StaticBearer | None = None
    sms_credentials: SmsCredentials | None = None
    static_token: StaticToken | None = None
    mms_credentials: MmsCredentials | None = None
    instagram_credentials: InstagramCredentials | None = None
    telegram_credentials: TelegramCredentials | None = None
    kakaotalk_credentials: KakaotalkCredentials | None = None
    kakaotalkchat_credentials: KakaotalkchatCredentials | None = None
    line_credentials: LineCredentials | None = None
    line_enterprise_credentials: LineEnterpriseCredentials | None = None
    wechat_credentials: WechatCredentials | None = None
    applebc_credentials: ApplebcCredentials | None = None
    #: Secret for callbacks from the channel, at most 256 characters.
    callback_secret: str = ""
    #: 0 to 255, for several credentials of one channel (LINE only).
    credential_ordinal_number: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the credential objects that are there."""
        return tuple(name for name in OBJECTS if getattr(self, name) is not None)

    @property
    def fields(self) -> Mapping[str, str]:
        """The credential object as flat text: what an adapter is handed. Nested names have dots."""
        found: dict[str, str] = {}
        for name in self.given:
            _flatten("", msgspec.to_builtins(getattr(self, name)), found)
        return found

    def __repr__(self) -> str:
        return f"Credential({self.channel!r}, {', '.join(self.given)})"


#: Every credential object.
OBJECTS: Final = tuple(name for name in Credential.__struct_fields__ if name.startswith("static_") or
                       name.endswith("_credentials"))  # fmt: skip

#: The objects each channel takes.
TAKEN: Final[Mapping[ChannelName, tuple[str, ...]]] = {
    ChannelName(channel): objects
    for channel, objects in {
        "WHATSAPP": ("static_bearer",),
        "RCS": ("static_bearer",),
        "SMS": ("static_bearer", "sms_credentials"),
        "VIBERBM": ("static_bearer",),
        "MESSENGER": ("static_token",),
        "MMS": ("mms_credentials",),
        "INSTAGRAM": ("instagram_credentials",),
        "TELEGRAM": ("telegram_credentials",),
        "KAKAOTALK": ("kakaotalk_credentials",),
        "KAKAOTALKCHAT": ("kakaotalkchat_credentials",),
        "LINE": ("line_credentials", "line_enterprise_credentials"),
        "WECHAT": ("wechat_credentials",),
        "APPLEBC": ("applebc_credentials",),
    }.items()
}


def claimed_account(credential: Credential) -> str | None:
    """The name of the operator's provider account that the credential asks for. None if it names none."""
    if credential.static_bearer:
        return credential.static_bearer.claimed_identity
    return credential.sms_credentials.sms_app_id if credential.sms_credentials else None


def _flatten(prefix: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(f"{prefix}.{name}" if prefix else name, item, found)
    elif isinstance(value, bool):
        found[prefix] = "true" if value else "false"
    else:
        found[prefix] = str(value)
