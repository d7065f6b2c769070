"""Our content as Bot API calls (channel-providers 8). Pure.

No `parse_mode`: a formatting error would lose the message. Choices are buttons of an inline keyboard, one a row.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from switchboard.channel.errors import Unsupported
from switchboard.channel.preview import Preview
from switchboard.content import (
    AppMessage,
    CardMessage,
    Choice,
    ChoiceMessage,
    ContactInfoMessage,
    ListMessage,
    LocationMessage,
    MediaMessage,
    TextMessage,
)
from switchboard.ids import MessageId
from switchboard.reason import Reason, ReasonCode
from switchboard.transcode import as_text, for_channel, map_link
from switchboard_channels.telegram.manifest import (
    CAPTION_LIMIT,
    DISABLE_LINK_PREVIEW,
    MANIFEST,
    TEXT_LIMIT,
    VCARD_LIMIT_BYTES,
)
from switchboard_channels.telegram.postback import button


class Call(Struct, frozen=True):
    """One Bot API method with its parameters."""

    method: str
    parameters: Mapping[str, Any]


class Rendered(Struct, frozen=True):
    """A message as calls, in order, and the postbacks too long for a button, by key."""

    calls: tuple[Call, ...]
    kept_postbacks: Mapping[str, str]


# By extension: what Telegram fetches by URL. Documents by URL are reliable only for these three kinds.
_METHODS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp"), ("sendPhoto", "photo")),
    **dict.fromkeys((".mp4", ".m4v", ".mov"), ("sendVideo", "video")),
    **dict.fromkeys((".mp3", ".m4a"), ("sendAudio", "audio")),
    **dict.fromkeys((".ogg", ".oga", ".opus"), ("sendVoice", "voice")),
    ".gif": ("sendAnimation", "animation"),
    **dict.fromkeys((".pdf", ".zip"), ("sendDocument", "document")),
}
# An app's own payload names its method as Telegram's webhook answers do; anything but sending is refused.
_OWN_METHOD: Final = re.compile(r"send[A-Z][A-Za-z]{1,40}")


def units(message: AppMessage, channel_properties: Mapping[str, str]) -> int:
    """How many Bot API messages this becomes. Raises Unsupported."""
    return len(render(message, "0", MessageId("0" * 26), channel_properties).calls)


def preview(
    message: AppMessage, recipient: str, message_id: MessageId, channel_properties: Mapping[str, str], settings: object
) -> Preview:
    """The Bot API calls of a message. Raises Unsupported."""
    calls = render(message, recipient, message_id, channel_properties).calls
    return Preview(len(calls), submissions=tuple({"method": call.method, **call.parameters} for call in calls))


def render(message: AppMessage, chat_id: str, message_id: MessageId, channel_properties: Mapping[str, str]) -> Rendered:
    """The calls that send `message` to a chat. Raises Unsupported where Telegram would refuse for certain."""
    own = message.explicit_channel_message.get(MANIFEST.channel)
    if own is not None:
        return Rendered((_own_call(own, chat_id),), {})
    writer = _Writer(chat_id, message_id, channel_properties)
    match for_channel(message, MANIFEST).content:
        case TextMessage() as text:
            writer.text(text.text)
        case MediaMessage() as media:
            writer.media(media, "", ())
        case ChoiceMessage() as choices:
            writer.text(choices.text_message.text if choices.text_message else "", choices.choices)
        case CardMessage() as card:
            writer.card(card)
        case LocationMessage() as location:
            writer.location(location)
        case ContactInfoMessage() as contact:
            writer.contact(contact)
        case ListMessage() as listing:
            writer.listing(listing)
        case other:
            raise _refused(f"Telegram carries no {type(other).__name__}.", ReasonCode.UNSUPPORTED_OPERATION)
    return Rendered(tuple(writer.calls), writer.kept_postbacks)


class _Writer:
    """Collects the calls of one message."""

    def __init__(self, chat_id: str, message_id: MessageId, properties: Mapping[str, str]) -> None:
        self.calls: list[Call] = []
        self.kept_postbacks: dict[str, str] = {}
        self._chat_id = int(chat_id)
        self._message_id = message_id
        self._hides_previews = properties.get(DISABLE_LINK_PREVIEW, "").lower() == "true"

    def text(self, text: str, choices: Sequence[Choice] = ()) -> None:
        keyboard, lines = self._keyboard(choices)
        text = "\n\n".join(part for part in (text, "\n".join(lines)) if part)
        # A keyboard cannot go without a text.
        self._send_text(text or (choices[0].caption if choices else ""), keyboard)

    def media(self, media: MediaMessage, caption: str, choices: Sequence[Choice]) -> None:
        keyboard, lines = self._keyboard(choices)
        caption = "\n\n".join(part for part in (caption, "\n".join(lines)) if part)
        method, field = _method_of(media)
        if not method:
            self._send_text("\n".join(part for part in (caption, media.url) if part), keyboard)
        elif _utf16_units(caption) <= CAPTION_LIMIT:
            self._call(method, {field: media.url, "caption": caption or None}, keyboard)
        else:
            # Quick replies belong to the last part (channel-providers 15.15).
            self._call(method, {field: media.url}, None)
            self._send_text(caption, keyboard)

    def card(self, card: CardMessage) -> None:
        head = "\n".join(line for line in (card.title, card.description) if line)
        if card.media_message:
            self.media(card.media_message, head, card.choices)
        else:
            self.text(head, card.choices)

    def location(self, location: LocationMessage) -> None:
        # A venue needs an address; a location would lose the title.
        self._call(
            "sendVenue",
            {
                "latitude": location.coordinates.latitude,
                "longitude": location.coordinates.longitude,
                "title": location.title,
                "address": location.label or location.title,
            },
            None,
        )

    def contact(self, contact: ContactInfoMessage) -> None:
        vcard = _vcard(contact)
        self._call(
            "sendContact",
            {
                "phone_number": contact.phone_numbers[0].phone_number,
                "first_name": contact.name.first_name or contact.name.full_name,
                "last_name": contact.name.last_name if contact.name.first_name else None,
                "vcard": vcard if len(vcard.encode()) <= VCARD_LIMIT_BYTES else None,
            },
            None,
        )

    def listing(self, listing: ListMessage) -> None:
        items = [item for section in listing.sections for item in section.items]
        if any(item.product for item in items):
            self.text(as_text(listing, MANIFEST.channel))
            return
        lines = [listing.title, listing.description or ""]
        choices = []
        for section in listing.sections:
            lines.append(section.title or "")
            for item in section.items:
                if item.choice:
                    if item.choice.description:
                        lines.append(f"{item.choice.title}: {item.choice.description}")
                    caption = TextMessage(item.choice.title)
                    choices.append(Choice(text_message=caption, postback_data=item.choice.postback_data))
        text = "\n".join(line for line in lines if line)
        if listing.media:
            self.media(listing.media, text, choices)
        else:
            self.text(text, choices)

    def _send_text(self, text: str, keyboard: Mapping[str, Any] | None) -> None:
        if not text.strip():
            raise _refused("The message has no text.")
        if _utf16_units(text) > TEXT_LIMIT:
            raise _refused(f"The text is longer than {TEXT_LIMIT} UTF-16 units.")
        previews = {"is_disabled": True} if self._hides_previews else None
        self._call("sendMessage", {"text": text, "link_preview_options": previews}, keyboard)

    def _call(self, method: str, parameters: Mapping[str, Any], keyboard: Mapping[str, Any] | None) -> None:
        given = {"chat_id": self._chat_id, **parameters, "reply_markup": keyboard}
        self.calls.append(Call(method, {name: value for name, value in given.items() if value is not None}))

    def _keyboard(self, choices: Sequence[Choice]) -> tuple[Mapping[str, Any] | None, list[str]]:
        """The keyboard, and the choices that no button can carry as lines of text."""
        if choices and all(choice.share_location_message for choice in choices):
            rows = [[{"text": choice.caption, "request_location": True}] for choice in choices]
            return {"keyboard": rows, "one_time_keyboard": True, "resize_keyboard": True}, []
        buttons, lines = [], []
        for number, choice in enumerate(choices):
            if choice.call_message:
                # Telegram refuses `tel:` in a button.
                lines.append(f"{choice.call_message.title}: {choice.call_message.phone_number}")
            else:
                buttons.append([self._button(number, choice)])
        return ({"inline_keyboard": buttons} if buttons else None), lines

    def _button(self, number: int, choice: Choice) -> Mapping[str, str]:
        if choice.url_message:
            return {"text": choice.caption, "url": choice.url_message.url}
        if choice.location_message:
            return {"text": choice.caption, "url": map_link(choice.location_message.coordinates)}
        if choice.calendar_message:
            return {"text": choice.caption, "url": choice.calendar_message.fallback_url}
        if choice.share_location_message:
            return {"text": choice.caption, "url": choice.share_location_message.fallback_url}
        made = button(self._message_id, number, choice.caption, choice.postback_data)
        if made.key:
            self.kept_postbacks[made.key] = made.kept
        return {"text": choice.caption, "callback_data": made.data}


def _own_call(payload: str, chat_id: str) -> Call:
    try:
        given = msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.DecodeError:
        raise _refused("The explicit Telegram message is not a JSON object.") from None
    method = given.pop("method", "sendMessage")
    if not isinstance(method, str) or not _OWN_METHOD.fullmatch(method):
        raise _refused("The explicit Telegram message does not name a method that sends.")
    return Call(method, {**given, "chat_id": int(chat_id)})


def _method_of(media: MediaMessage) -> tuple[str, str]:
    for name in (media.filename_override or "", urlsplit(media.url).path):
        if found := _METHODS.get(PurePosixPath(name).suffix.lower()):
            return found
    return "", ""


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _vcard(contact: ContactInfoMessage) -> str:
    name = contact.name
    parts = (name.last_name, name.first_name, name.middle_name, name.prefix, name.suffix)
    lines = ["BEGIN:VCARD", "VERSION:3.0", f"FN:{_escaped(name.full_name)}"]
    lines.append("N:" + ";".join(_escaped(part or "") for part in parts))
    lines += [f"TEL{_kind(phone.type)}:{_escaped(phone.phone_number)}" for phone in contact.phone_numbers]
    lines += [f"EMAIL{_kind(mail.type)}:{_escaped(mail.email_address)}" for mail in contact.email_addresses]
    for address in contact.addresses:
        place = (address.city, address.state, address.zip, address.country)
        lines.append(f"ADR{_kind(address.type)}:;;;" + ";".join(_escaped(part or "") for part in place))
    if contact.organization:
        lines.append(f"ORG:{_escaped(contact.organization.company or '')}")
        if contact.organization.title:
            lines.append(f"TITLE:{_escaped(contact.organization.title)}")
    lines += [f"URL{_kind(url.type)}:{_escaped(url.url)}" for url in contact.urls]
    if contact.birthday:
        lines.append(f"BDAY:{_escaped(contact.birthday)}")
    return "\r\n".join([*lines, "END:VCARD"])


def _kind(kind: str | None) -> str:
    return f";TYPE={kind}" if kind and kind.isalnum() else ""


def _escaped(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), (",", "\\,"), (";", "\\;"), ("\r", ""), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return text


def _refused(description: str, code: ReasonCode = ReasonCode.BAD_REQUEST) -> Unsupported:
    return Unsupported(Reason(code, description))
