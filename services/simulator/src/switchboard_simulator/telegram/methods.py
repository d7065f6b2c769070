"""The sending methods of the Bot API: reads and checks a call (pure). Limits: channel-providers 8."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard_simulator.body import Upload
from switchboard_simulator.phones import Button
from switchboard_simulator.telegram.markup import is_link, plain_text, read_markup
from switchboard_simulator.telegram.refused import bad_request

MOST_TEXT_UNITS: Final = 4096
MOST_CAPTION_UNITS: Final = 1024
MOST_VCARD_BYTES: Final = 2048
#: Uploads: photos up to 10 MB, all else up to 50 MB [k].
MOST_PHOTO_BYTES: Final = 10_000_000
MOST_FILE_BYTES: Final = 50_000_000

#: Media methods and the field that holds the file.
MEDIA_METHODS: Final = {
    "sendPhoto": "photo",
    "sendVideo": "video",
    "sendAudio": "audio",
    "sendVoice": "voice",
    "sendDocument": "document",
    "sendAnimation": "animation",
    "sendSticker": "sticker",
}
#: Every method that puts a message on a phone.
SENDING_METHODS: Final = frozenset(
    (*MEDIA_METHODS, "sendMessage", "sendMediaGroup", "sendLocation", "sendVenue", "sendContact")
)
ACTIONS: Final = frozenset(
    (
        "typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice", "upload_document",
        "choose_sticker", "find_location", "record_video_note", "upload_video_note",
    )
)  # fmt: skip
_ALBUM_KINDS: Final = frozenset(("photo", "video", "audio", "document"))
_ALONE: Final = frozenset(("audio", "document"))

Fields = Mapping[str, object]


class Attachment(Struct, frozen=True):
    """A file in a call: a link, the id of a file the Bot API knows, or an upload."""

    kind: str
    source: str | Upload
    caption: str = ""


class Outgoing(Struct, frozen=True):
    """A message (or an album of them) a bot wants to send, checked."""

    chat_id: int
    #: The text or caption, without markup.
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    buttons: tuple[tuple[Button, ...], ...] = ()
    #: The inline keyboard as the answer echoes it.
    markup: dict[str, Any] | None = None
    location: tuple[float, float] | None = None
    #: Title and address of a venue.
    venue: tuple[str, str] | None = None
    #: First name, last name, number of a contact.
    contact: tuple[str, str, str] | None = None
    reply_to: int | None = None


def recipient_of(fields: Fields) -> str:
    """The chat a call is for, as it was written; "" when it names none."""
    value = fields.get("chat_id")
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def text_of(method: str, fields: Fields) -> str:
    """The words of a call as they were written, for the log."""
    value = fields.get("text" if method == "sendMessage" else "caption", "")
    return value if isinstance(value, str) else ""


def read_outgoing(method: str, fields: Fields) -> Outgoing:
    """Check a sending call. Raises Refused in the Bot API's own words."""
    chat_id = read_chat(fields)
    buttons, markup = read_markup(fields.get("reply_markup"))
    reply_to = _reply_to(fields)
    if method == "sendMessage":
        text = _text(fields)
        return Outgoing(chat_id, text, buttons=buttons, markup=markup, reply_to=reply_to)
    if method == "sendMediaGroup":
        return Outgoing(chat_id, attachments=_album(fields), reply_to=reply_to)
    if method == "sendContact":
        return Outgoing(chat_id, contact=_contact(fields), buttons=buttons, markup=markup, reply_to=reply_to)
    if method in ("sendLocation", "sendVenue"):
        venue = _venue(fields) if method == "sendVenue" else None
        return Outgoing(chat_id, location=_location(fields), venue=venue, buttons=buttons, markup=markup,
                        reply_to=reply_to)  # fmt: skip
    kind = MEDIA_METHODS[method]
    caption = _caption(fields) if method != "sendSticker" else ""
    attachment = Attachment(kind, _source(kind, fields.get(kind), fields))
    return Outgoing(chat_id, caption, (attachment,), buttons, markup, reply_to=reply_to)


def read_chat(fields: Fields) -> int:
    """The chat's number. Channels named `@so` do not exist here."""
    written = recipient_of(fields)
    if not written:
        raise bad_request("chat_id is empty")
    try:
        chat_id = int(written)
    except ValueError:
        raise bad_request("chat not found") from None
    if chat_id == 0 or abs(chat_id) >= 2**52:
        raise bad_request("chat not found")
    return chat_id


def read_action(fields: Fields) -> str:
    """The action of `sendChatAction`."""
    action = fields.get("action")
    if action not in ACTIONS:
        raise bad_request("wrong parameter action in request")
    return str(action)


def units(text: str) -> int:
    """The length of a text as the Bot API counts it: UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _text(fields: Fields) -> str:
    written = fields.get("text")
    if not isinstance(written, str):
        raise bad_request("message text is empty")
    text = plain_text(written, fields.get("parse_mode"))
    if not text.strip():
        raise bad_request("message text is empty")
    if units(text) > MOST_TEXT_UNITS:
        raise bad_request("message is too long")
    return text


def _caption(fields: Fields) -> str:
    written = fields.get("caption") or ""
    caption = plain_text(written, fields.get("parse_mode")) if isinstance(written, str) else ""
    if units(caption) > MOST_CAPTION_UNITS:
        raise bad_request("message caption is too long")
    return caption


def _source(kind: str, value: object, fields: Fields) -> str | Upload:
    if isinstance(value, str) and value.startswith("attach://"):
        value = fields.get(value.removeprefix("attach://"))
    if isinstance(value, Upload):
        if len(value.content) > (MOST_PHOTO_BYTES if kind == "photo" else MOST_FILE_BYTES):
            raise bad_request("file is too big")
        if not value.content:
            raise bad_request("file must be non-empty")
        return value
    if not isinstance(value, str) or not value:
        raise bad_request(f"there is no {kind} in the request")
    if "://" in value or value.startswith(("/", "http")):
        if not value.startswith(("http://", "https://")) or not is_link(value):
            raise bad_request("wrong HTTP URL specified")
        return value
    if len(value) < 10 or not value.replace("_", "").replace("-", "").isalnum():
        raise bad_request("wrong file identifier/HTTP URL specified")
    return value


def _album(fields: Fields) -> tuple[Attachment, ...]:
    value = fields.get("media")
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise bad_request("can't parse media JSON object") from None
    if not isinstance(value, list) or not 2 <= len(value) <= 10:
        raise bad_request("there must be 2 to 10 media in an album")
    album = tuple(_album_item(item, fields) for item in value)
    kinds = {item.kind for item in album}
    if len(kinds) > 1 and kinds & _ALONE:
        raise bad_request(f"{sorted(kinds & _ALONE)[0]} can't be mixed with other media types")
    return album


def _album_item(item: object, fields: Fields) -> Attachment:
    if not isinstance(item, dict) or item.get("type") not in _ALBUM_KINDS:
        raise bad_request("wrong type of media in the album")
    kind = str(item["type"])
    return Attachment(kind, _source(kind, item.get("media"), fields), _caption(item))


def _location(fields: Fields) -> tuple[float, float]:
    try:
        latitude, longitude = (float(str(fields[name])) for name in ("latitude", "longitude"))
    except (KeyError, ValueError):
        raise bad_request("latitude and longitude must be numbers") from None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise bad_request("wrong latitude or longitude specified")
    return latitude, longitude


def _venue(fields: Fields) -> tuple[str, str]:
    title, address = (str(fields.get(name) or "") for name in ("title", "address"))
    if not title or not address:
        raise bad_request("title and address of a venue must be non-empty")
    return title, address


def _contact(fields: Fields) -> tuple[str, str, str]:
    number, first, last = (str(fields.get(name) or "") for name in ("phone_number", "first_name", "last_name"))
    if not number:
        raise bad_request("phone number is empty")
    if not first:
        raise bad_request("first name is empty")
    if len(str(fields.get("vcard") or "").encode()) > MOST_VCARD_BYTES:
        raise bad_request("vCard is too long")
    return first, last, number


def _reply_to(fields: Fields) -> int | None:
    value = fields.get("reply_parameters")
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise bad_request("can't parse reply parameters JSON object") from None
    if isinstance(value, dict):
        message_id = value.get("message_id")
        return message_id if isinstance(message_id, int) else None
    return None
