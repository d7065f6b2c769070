"""What a button carries within 64 bytes, and how it is read when pressed.

A short postback travels in the button itself. A long one is kept by the host under a key, and the button carries
the key. All forms name the message first: that is how an answer finds its question.
"""

from typing import Final

from msgspec import Struct

from switchboard.ids import is_ulid
from switchboard_channels.telegram.manifest import CALLBACK_DATA_LIMIT_BYTES

_GIVEN: Final = "c"
_DEFAULT: Final = "d"
_KEPT: Final = "k"


class Pressed(Struct, frozen=True):
    """What a pressed button says."""

    #: "" if the button was not made here.
    message_id: str
    postback: str
    #: The key under which the host keeps the postback; "" if it is complete.
    key: str = ""


class Button(Struct, frozen=True):
    """What to put in a button, and what the host must keep for it."""

    data: str
    key: str = ""
    kept: str = ""


def button(message_id: str, number: int, caption: str, postback: str | None) -> Button:
    """The data of the message's choice `number`, whose postback is `message_id_caption` unless given."""
    kind, told = (_DEFAULT, caption) if postback is None else (_GIVEN, postback)
    data = f"{kind}:{message_id}:{told}"
    if len(data.encode()) <= CALLBACK_DATA_LIMIT_BYTES:
        return Button(data)
    key = f"{message_id}:{number}"
    return Button(f"{_KEPT}:{key}", key, f"{message_id}_{caption}" if postback is None else postback)


def pressed(data: str) -> Pressed:
    """Read a button's data. Foreign data (an app's own keyboard) comes back as it is."""
    kind, _, rest = data.partition(":")
    message_id, _, told = rest.partition(":")
    if not is_ulid(message_id):
        return Pressed("", data)
    match kind:
        case "c":
            return Pressed(message_id, told)
        case "d":
            return Pressed(message_id, f"{message_id}_{told}")
        case "k":
            return Pressed(message_id, rest, rest)
        case _:
            return Pressed("", data)
