"""The facts of TELEGRAM (channel-providers 8, 14; conversation-api 7, 8)."""

import re
from typing import Final

from switchboard.channel.manifest import (
    AccountOwner,
    Connection,
    CredentialField,
    CredentialSpec,
    Manifest,
    Support,
)
from switchboard.identity import ChannelName

#: Text of one message, in UTF-16 units after entity parsing.
TEXT_LIMIT: Final = 4096
#: Caption of media, in UTF-16 units.
CAPTION_LIMIT: Final = 1024
CALLBACK_DATA_LIMIT_BYTES: Final = 64
VCARD_LIMIT_BYTES: Final = 2048
DISABLE_LINK_PREVIEW: Final = "TELEGRAM_DISABLE_LINK_PREVIEW"

# Groups and channels have negative ids; all may exceed 32 bits (channel-providers 15.6).
_CHAT_ID: Final = re.compile(r"-?[0-9]{1,19}")


def normal_identity(text: str) -> str:
    """A chat id in digits, negative for groups. Raises ValueError if it is none."""
    chat_id = text.strip()
    if not _CHAT_ID.fullmatch(chat_id):
        raise ValueError("a numeric Telegram chat id is expected")
    return str(int(chat_id))


MANIFEST: Final = Manifest(
    channel=ChannelName("TELEGRAM"),
    title="Telegram",
    owner=AccountOwner.APP,
    connection=Connection.REQUEST,
    credentials=CredentialSpec("telegram_credentials", (CredentialField("token", secret=True),)),
    normal_identity=normal_identity,
    content={
        "text_message": Support.NATIVE,
        "media_message": Support.NATIVE,
        "card_message": Support.NATIVE,
        "carousel_message": Support.TEXT,
        "choice_message": Support.NATIVE,
        "location_message": Support.NATIVE,
        "list_message": Support.NATIVE,
        "contact_info_message": Support.NATIVE,
        "template_message": Support.UNSUPPORTED,
    },
    events=frozenset({"composing_event"}),
    tells_capability=True,
    properties=frozenset({DISABLE_LINK_PREVIEW}),
    # About 30 messages a second for each bot [k].
    rate_per_second=30.0,
)
