"""Who someone is on one channel, and the keys that keep one person's records in order."""

import hashlib
import hmac
import re
from typing import Final, NewType

from msgspec import Struct

#: A channel's name as the API spells it: SMS, TELEGRAM … Checked against the channel folders found (channel/registry).
ChannelName = NewType("ChannelName", str)

#: The channels of the contract (conversation-api 7.1). Which of them this installation can use is another question.
CONTRACT_CHANNELS: Final = frozenset(
    ChannelName(name)
    for name in (
        "WHATSAPP", "RCS", "SMS", "MESSENGER", "VIBERBM", "MMS", "INSTAGRAM", "TELEGRAM", "KAKAOTALK",
        "KAKAOTALKCHAT", "LINE", "WECHAT", "APPLEBC",
    )
)  # fmt: skip

#: Those of them whose identities belong to one app, and those whose identities are phone numbers (7.2).
APP_SCOPED_CHANNELS: Final = frozenset(map(ChannelName, ("MESSENGER", "INSTAGRAM", "LINE", "WECHAT")))
PHONE_CHANNELS: Final = frozenset(map(ChannelName, ("SMS", "MMS", "RCS", "WHATSAPP", "VIBERBM")))

_MSISDN: Final = re.compile(r"\+?[0-9]{1,20}")


class ChannelIdentity(Struct, frozen=True):
    """Who someone is on one channel (conversation-api 4.0)."""

    channel: ChannelName
    #: The provider's own spelling: an E.164 number without "+" on SMS, a chat id on TELEGRAM.
    identity: str
    #: Only for channels whose identities are scoped to an app (MESSENGER, INSTAGRAM …); "" elsewhere.
    app_id: str = ""


def normal_msisdn(text: str) -> str:
    """Spell a phone number in digits, without the leading "+" (conversation-api 7.2).

    A leading space is a "+" that a client did not percent-encode (section 2). Raises ValueError if it is no number.
    """
    number = text.strip()
    if not _MSISDN.fullmatch(number):
        raise ValueError("an international phone number in digits is expected")
    return number.removeprefix("+")


def keyed_hash(key: bytes, *parts: str) -> bytes:
    """A record key that keeps one person's records in order and tells nobody who it is (DESIGN 2.8, 4)."""
    return hmac.digest(key, "\x1f".join(parts).encode(), hashlib.sha256)[:16]
