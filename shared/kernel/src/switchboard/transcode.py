"""What a channel gets of a message: its own content if there is some, else the generic one, as text where needed.

The text layouts are conversation-api 7.4, the precedence is 5.1, what a channel carries is in its manifest. Pure.
"""

from collections.abc import Iterator
from decimal import Decimal
from struct import pack, unpack
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from switchboard.channel.errors import Unsupported
from switchboard.channel.manifest import Manifest, Support
from switchboard.channel_specific import ChannelSpecificMessage
from switchboard.content import (
    KIND,
    AppMessage,
    CardMessage,
    CarouselMessage,
    Choice,
    ChoiceMessage,
    ContactInfoMessage,
    Content,
    Coordinates,
    ListItem,
    ListMessage,
    LocationMessage,
    MediaMessage,
    TemplateMessage,
    TextMessage,
    of_content,
)
from switchboard.identity import ChannelName
from switchboard.reason import Reason, ReasonCode


class Explicit(Struct, frozen=True):
    """The channel's own payload, given by the app as text: it goes out as it is."""

    payload: str


class Layout(Struct, frozen=True):
    """How one channel lays content out as text."""

    bold: str = ""
    italic: str = ""
    bullet: str = "> "
    #: An empty line between a text and its choices.
    choices_apart: bool = True
    #: Empty lines inside a card, before its media and before its choices.
    card_parts_apart: bool = False
    #: `1. ` before every card of a carousel, and an empty line between cards.
    numbered: bool = True
    #: What stands before a map link instead of the location's title.
    location_caption: str = ""


_EMPHASISED: Final = Layout(bold="*", italic="_", card_parts_apart=True)
_PLAIN: Final = Layout()
#: Channels with a layout of their own. The others use the plain one, without emphasis (conversation-api 16, row 24).
_LAYOUTS: Final = {
    ChannelName("MMS"): Layout(choices_apart=False, numbered=False),
    ChannelName("WHATSAPP"): _EMPHASISED,
    ChannelName("VIBERBM"): _EMPHASISED,
    ChannelName("TELEGRAM"): Layout(bullet="* "),
    ChannelName("INSTAGRAM"): Layout(location_caption="Location"),
}


def select(message: AppMessage, channel: ChannelName) -> Explicit | ChannelSpecificMessage | Content | None:
    """The content that `channel` gets: its own payload, its own type, its own override, the generic one; or None."""
    if (payload := message.explicit_channel_message.get(channel)) is not None:
        return Explicit(payload)
    if (specific := message.channel_specific_message.get(channel)) is not None:
        return specific
    if (override := message.explicit_channel_omni_message.get(channel)) is not None:
        return override.content
    return message.content


def for_channel(message: AppMessage, manifest: Manifest) -> AppMessage:
    """The message as this channel carries it: exactly one content, native to the channel, and nothing else.

    Raises Unsupported where there is none.
    """
    match select(message, manifest.channel):
        case None:
            raise Unsupported(Reason(ReasonCode.BAD_REQUEST, f"The message has no content for {manifest.channel}."))
        case Explicit(payload):
            return AppMessage(explicit_channel_message={manifest.channel: payload})
        case (
            TextMessage()
            | MediaMessage()
            | CardMessage()
            | CarouselMessage()
            | ChoiceMessage()
            | LocationMessage()
            | ListMessage()
            | TemplateMessage()
            | ContactInfoMessage() as content
        ):
            return of_content(downgrade(content, manifest))
        case specific:
            if manifest.content.get("channel_specific_message") is not Support.NATIVE:
                raise _unsupported("channel_specific_message", manifest)
            return AppMessage(channel_specific_message={manifest.channel: specific})


def downgrade(content: Content, manifest: Manifest) -> Content:
    """The same content if the channel carries it, else as text. Raises Unsupported where it can do neither."""
    if isinstance(content, TemplateMessage):
        return _template(content, manifest)
    match manifest.content.get(KIND[type(content)], Support.UNSUPPORTED):
        case Support.NATIVE:
            return content
        case Support.TEXT:
            return TextMessage(as_text(content, manifest.channel))
        case Support.UNSUPPORTED:
            raise _unsupported(KIND[type(content)], manifest)


def as_text(content: Content, channel: ChannelName) -> str:
    """Lay content out as text, as `channel` does. Raises Unsupported for templates: they are not content."""
    layout = _LAYOUTS.get(channel, _PLAIN)
    match content:
        case TextMessage():
            return content.text
        case MediaMessage():
            return content.url
        case LocationMessage():
            return _location(content, layout)
        case ChoiceMessage():
            return _choice_message(content, layout)
        case CardMessage():
            return _card(content, layout)
        case CarouselMessage():
            return _carousel(content, layout)
        case ListMessage():
            return "\n".join(_list_lines(content, layout))
        case ContactInfoMessage():
            return "\n".join([content.name.full_name, *(phone.phone_number for phone in content.phone_numbers)])
        case TemplateMessage():
            raise Unsupported(Reason(ReasonCode.TEMPLATE_NOT_FOUND, "A template is not known here."))


def map_link(coordinates: Coordinates) -> str:
    """A link that shows the point on a map."""
    query = quote(f"{float32(coordinates.latitude)},{float32(coordinates.longitude)}", safe=",")
    return f"https://www.google.com/maps/search/?api=1&query={query}"


def float32(value: float) -> str:
    """The shortest decimal that is the same 32-bit float: 55.610479 is 55.610477 (conversation-api 7.4)."""
    packed = pack("<f", value)
    single: float = unpack("<f", packed)[0]
    for digits in range(1, 10):
        text = f"{single:.{digits}g}"
        if pack("<f", float(text)) == packed:
            break
    return format(Decimal(text), "f")


def _template(content: TemplateMessage, manifest: Manifest) -> Content:
    if manifest.channel in content.channel_template:
        if manifest.content.get("template_message") is Support.NATIVE:
            return content
        raise _unsupported("template_message", manifest)
    raise Unsupported(Reason(ReasonCode.TEMPLATE_NOT_FOUND, f"There is no such template for {manifest.channel}."))


def _unsupported(kind: str, manifest: Manifest) -> Unsupported:
    return Unsupported(Reason(ReasonCode.UNSUPPORTED_OPERATION, f"{manifest.channel} does not carry {kind}."))


def _location(location: LocationMessage, layout: Layout) -> str:
    return f"{layout.location_caption or location.title}: {map_link(location.coordinates)}"


def _choice_line(choice: Choice, layout: Layout) -> str:
    if choice.text_message:
        return layout.bullet + choice.text_message.text.upper()
    target = ""
    if choice.url_message:
        target = choice.url_message.url
    elif choice.call_message:
        target = choice.call_message.phone_number
    elif choice.location_message:
        target = map_link(choice.location_message.coordinates)
    elif choice.calendar_message:
        target = choice.calendar_message.fallback_url
    elif choice.share_location_message:
        target = choice.share_location_message.fallback_url
    return f"{layout.bullet}{choice.caption}: {target}"


def _choice_lines(choices: tuple[Choice, ...], layout: Layout) -> str:
    return "\n".join(_choice_line(choice, layout) for choice in choices)


def _joined(blocks: Iterator[str] | list[str], *, apart: bool) -> str:
    return ("\n\n" if apart else "\n").join(block for block in blocks if block)


def _choice_message(message: ChoiceMessage, layout: Layout) -> str:
    text = message.text_message.text if message.text_message else ""
    return _joined([text, _choice_lines(message.choices, layout)], apart=layout.choices_apart)


def _head(title: str | None, description: str | None, layout: Layout) -> str:
    lines = []
    if title:
        lines.append(f"{layout.bold}{title}{layout.bold}")
    if description:
        lines.append(f"{layout.italic}{description}{layout.italic}")
    return "\n".join(lines)


def _card(card: CardMessage, layout: Layout) -> str:
    media = card.media_message.url if card.media_message else ""
    parts = [_head(card.title, card.description, layout), media, _choice_lines(card.choices, layout)]
    return _joined(parts, apart=layout.card_parts_apart)


def _carousel(carousel: CarouselMessage, layout: Layout) -> str:
    cards = [_card(card, layout) for card in carousel.cards]
    if layout.numbered:
        cards = [f"{number}. {card}" for number, card in enumerate(cards, start=1)]
    return _joined([*cards, _choice_lines(carousel.choices, layout)], apart=layout.numbered)


def _list_lines(message: ListMessage, layout: Layout) -> Iterator[str]:
    yield _head(message.title, message.description, layout)
    if message.media:
        yield message.media.url
    for section in message.sections:
        if section.title:
            yield section.title
        for item in section.items:
            yield layout.bullet + _item_title(item)


def _item_title(item: ListItem) -> str:
    if item.choice:
        return item.choice.title
    return item.product.id if item.product else ""
