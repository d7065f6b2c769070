"""The rules for content that a type cannot express (conversation-api 15.1, rows 7a to 15). Pure."""

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from switchboard.channel_specific import (
    SPECIFIC_TO,
    CarouselCommerceMessage,
    ChannelSpecificMessage,
    CommerceMessage,
    Flow,
    FlowsMessage,
    LineNotificationMessage,
    OrderDetails,
    OrderDetailsMessage,
    OrderStatus,
    OrderStatusMessage,
)
from switchboard.content import (
    KIND,
    Agent,
    AppEvent,
    AppMessage,
    CardMessage,
    CarouselMessage,
    Choice,
    ChoiceMessage,
    ContactInfoMessage,
    Content,
    ListItem,
    ListMessage,
    LocationMessage,
    MediaMessage,
    OmniOverride,
    OmniTemplate,
    TemplateMessage,
    TextMessage,
    contents,
)
from switchboard.identity import CONTRACT_CHANNELS, ChannelName

MAX_CHOICES: Final = 10
MAX_OUTER_CHOICES: Final = 3
MAX_CARDS: Final = 10
MAX_FLOW_CALL_TO_ACTION: Final = 20
MAX_INTERACTIVE_BODY: Final = 1024
MAX_INTERACTIVE_FOOTER: Final = 60
MAX_ORDER_STATUS_DESCRIPTION: Final = 120


class Violation(Struct, frozen=True):
    """One thing wrong with a request: which field, and what is expected of it."""

    field: str
    description: str


def validate(message: AppMessage, tried: Collection[ChannelName] | None = None) -> list[Violation]:
    """Everything that makes a message a bad request, whatever channel it goes to.

    Field names are relative to the message. `tried` are the channels that will be tried, where known: a
    message without generic content needs content of its own for each of them.
    """
    found = list(_validate_content(message, tried))
    for name, entries in (
        ("explicit_channel_message", message.explicit_channel_message),
        ("explicit_channel_omni_message", message.explicit_channel_omni_message),
        ("channel_specific_message", message.channel_specific_message),
    ):
        found += [
            Violation(f"{name}.{channel}", "unknown channel") for channel in entries if channel not in CONTRACT_CHANNELS
        ]
    for channel, payload in message.explicit_channel_message.items():
        found += _filled(f"explicit_channel_message.{channel}", payload)
    for channel, override in message.explicit_channel_omni_message.items():
        found += _validate_override(f"explicit_channel_omni_message.{channel}", override)
    for channel, specific in message.channel_specific_message.items():
        found += _validate_specific(f"channel_specific_message.{channel}", channel, specific)
    if message.agent:
        found += _validate_agent("agent", message.agent)
    return found


def validate_event(event: AppEvent) -> list[Violation]:
    """Everything that makes an app event a bad request. Field names are relative to the event."""
    given = [name for name in event.__struct_fields__ if getattr(event, name) is not None]
    if len(given) != 1:
        return [_one_of("event", given)]
    if event.comment_reply_event:
        return list(_filled("comment_reply_event.text", event.comment_reply_event.text))
    for name, told in (
        ("agent_joined_event", event.agent_joined_event),
        ("agent_left_event", event.agent_left_event),
    ):
        if told:
            return list(_validate_agent(f"{name}.agent", told.agent))
    return []


def well_formed_url(text: str, schemes: Collection[str] = ("http", "https")) -> bool:
    """Tell whether `text` is an absolute URL with a host and one of `schemes` (any, if none is named)."""
    if _BLANK.search(text):
        return False
    try:
        parts = urlsplit(text)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if schemes:
        return parts.scheme.lower() in schemes and bool(parts.hostname) and port_is_good
    return bool(parts.scheme) and bool(parts.netloc or parts.path)


_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f<>\"\\^`{|}]")


def _validate_content(message: AppMessage, tried: Collection[ChannelName] | None) -> Iterator[Violation]:
    generic = list(contents(message))
    if len(generic) > 1:
        yield _one_of("", [KIND[type(content)] for content in generic])
    for content in generic:
        yield from _validate(KIND[type(content)], content)
    if generic:
        return
    own = {
        *message.explicit_channel_message,
        *message.explicit_channel_omni_message,
        *message.channel_specific_message,
    }
    if not own:
        yield _one_of("", [])
    elif tried is not None and (without := [channel for channel in tried if channel not in own]):
        yield Violation("", f"no content for {', '.join(without)}: give a generic content or one for each channel")


def _one_of(where: str, given: Collection[str]) -> Violation:
    if given:
        return Violation(where, f"exactly one content is expected, not {', '.join(given)}")
    return Violation(where, "exactly one content is expected")


def _validate(where: str, content: Content) -> Iterator[Violation]:
    match content:
        case TextMessage():
            yield from _filled(f"{where}.text", content.text)
        case MediaMessage():
            yield from _validate_media(where, content)
        case CardMessage():
            yield from _validate_card(where, content)
        case CarouselMessage():
            yield from _validate_carousel(where, content)
        case ChoiceMessage():
            yield from _validate_choice_message(where, content)
        case LocationMessage():
            yield from _validate_location(where, content)
        case ListMessage():
            yield from _validate_list(where, content)
        case TemplateMessage():
            yield from _validate_template(where, content)
        case ContactInfoMessage():
            yield from _validate_contact_info(where, content)


def _filled(where: str, text: str | None) -> Iterator[Violation]:
    if not text:
        yield Violation(where, "must not be empty")


def _at_most(where: str, text: str | None, limit: int) -> Iterator[Violation]:
    if text and len(text) > limit:
        yield Violation(where, f"at most {limit} characters")


def _web(where: str, url: str | None) -> Iterator[Violation]:
    if url is not None and not well_formed_url(url):
        yield Violation(where, "an absolute http or https URL is expected")


def _moment(where: str, text: str) -> Iterator[Violation]:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        yield Violation(where, "an RFC 3339 time is expected")


def _validate_media(where: str, media: MediaMessage) -> Iterator[Violation]:
    yield from _web(f"{where}.url", media.url)
    yield from _web(f"{where}.thumbnail_url", media.thumbnail_url or None)


def _validate_location(where: str, location: LocationMessage) -> Iterator[Violation]:
    yield from _filled(f"{where}.title", location.title)
    if not -90 <= location.coordinates.latitude <= 90:
        yield Violation(f"{where}.coordinates.latitude", "must be between -90 and 90")
    if not -180 <= location.coordinates.longitude <= 180:
        yield Violation(f"{where}.coordinates.longitude", "must be between -180 and 180")


def _validate_choices(where: str, choices: tuple[Choice, ...], limit: int) -> Iterator[Violation]:
    if len(choices) > limit:
        yield Violation(where, f"at most {limit} choices")
    for number, choice in enumerate(choices):
        yield from _validate_choice(f"{where}[{number}]", choice)


def _validate_choice(where: str, choice: Choice) -> Iterator[Violation]:
    given = [name for name in choice.__struct_fields__[:6] if getattr(choice, name) is not None]
    if len(given) != 1:
        yield _one_of(where, given)
    if choice.text_message:
        yield from _filled(f"{where}.text_message.text", choice.text_message.text)
    if link := choice.url_message:
        yield from _filled(f"{where}.url_message.title", link.title)
        if not well_formed_url(link.url, schemes=()):
            yield Violation(f"{where}.url_message.url", "an absolute URL is expected")
    if call := choice.call_message:
        yield from _filled(f"{where}.call_message.title", call.title)
        yield from _filled(f"{where}.call_message.phone_number", call.phone_number)
    if choice.location_message:
        yield from _validate_location(f"{where}.location_message", choice.location_message)
    if calendar := choice.calendar_message:
        yield from _filled(f"{where}.calendar_message.title", calendar.title)
        yield from _filled(f"{where}.calendar_message.event_title", calendar.event_title)
        yield from _moment(f"{where}.calendar_message.event_start", calendar.event_start)
        yield from _moment(f"{where}.calendar_message.event_end", calendar.event_end)
        yield from _web(f"{where}.calendar_message.fallback_url", calendar.fallback_url)
    if share := choice.share_location_message:
        yield from _filled(f"{where}.share_location_message.title", share.title)
        yield from _web(f"{where}.share_location_message.fallback_url", share.fallback_url)


def _validate_choice_message(where: str, message: ChoiceMessage) -> Iterator[Violation]:
    if not message.choices:
        yield Violation(f"{where}.choices", "at least one choice is expected")
    yield from _validate_choices(f"{where}.choices", message.choices, MAX_CHOICES)
    if message.text_message:
        yield from _filled(f"{where}.text_message.text", message.text_message.text)


def _validate_card(where: str, card: CardMessage) -> Iterator[Violation]:
    if not card.title and not card.media_message and not card.description:
        yield Violation(f"{where}.title", "a title, a description or media is expected")
    if card.media_message:
        yield from _validate_media(f"{where}.media_message", card.media_message)
    yield from _validate_choices(f"{where}.choices", card.choices, MAX_CHOICES)


def _validate_carousel(where: str, carousel: CarouselMessage) -> Iterator[Violation]:
    if not 1 <= len(carousel.cards) <= MAX_CARDS:
        yield Violation(f"{where}.cards", f"1 to {MAX_CARDS} cards are expected")
    for number, card in enumerate(carousel.cards):
        yield from _validate_card(f"{where}.cards[{number}]", card)
    yield from _validate_choices(f"{where}.choices", carousel.choices, MAX_OUTER_CHOICES)


def _validate_list(where: str, message: ListMessage) -> Iterator[Violation]:
    yield from _filled(f"{where}.title", message.title)
    if not message.sections:
        yield Violation(f"{where}.sections", "at least one section is expected")
    if message.media:
        yield from _validate_media(f"{where}.media", message.media)
    choices = products = 0
    for number, section in enumerate(message.sections):
        if not section.items:
            yield Violation(f"{where}.sections[{number}].items", "at least one item is expected")
        for index, item in enumerate(section.items):
            choices += item.choice is not None
            products += item.product is not None
            yield from _validate_list_item(f"{where}.sections[{number}].items[{index}]", item)
    if choices and products:
        yield Violation(f"{where}.sections", "all items are expected to be choices, or all products")
    if choices > MAX_CHOICES:
        yield Violation(f"{where}.sections", f"at most {MAX_CHOICES} choices")
    if products and not (message.message_properties and message.message_properties.catalog_id):
        yield Violation(f"{where}.message_properties.catalog_id", "products need a catalog")


def _validate_list_item(where: str, item: ListItem) -> Iterator[Violation]:
    if (item.choice is None) == (item.product is None):
        yield Violation(where, "exactly one of choice and product is expected")
    if item.choice:
        yield from _filled(f"{where}.choice.title", item.choice.title)
        if item.choice.media:
            yield from _validate_media(f"{where}.choice.media", item.choice.media)
    if item.product:
        yield from _filled(f"{where}.product.id", item.product.id)
        yield from _filled(f"{where}.product.marketplace", item.product.marketplace)


def _validate_template(where: str, message: TemplateMessage) -> Iterator[Violation]:
    if not message.channel_template and not message.omni_template:
        yield Violation(where, "a channel_template or an omni_template is expected")
    for channel, template in message.channel_template.items():
        if channel not in CONTRACT_CHANNELS:
            yield Violation(f"{where}.channel_template.{channel}", "unknown channel")
        yield from _filled(f"{where}.channel_template.{channel}.template_id", template.template_id)
    if message.omni_template:
        yield from _validate_omni_template(f"{where}.omni_template", message.omni_template)


def _validate_omni_template(where: str, template: OmniTemplate) -> Iterator[Violation]:
    yield from _filled(f"{where}.template_id", template.template_id)
    yield from _filled(f"{where}.version", template.version)


def _validate_contact_info(where: str, message: ContactInfoMessage) -> Iterator[Violation]:
    yield from _filled(f"{where}.name.full_name", message.name.full_name)
    if not message.phone_numbers:
        yield Violation(f"{where}.phone_numbers", "at least one phone number is expected")
    for number, phone in enumerate(message.phone_numbers):
        yield from _filled(f"{where}.phone_numbers[{number}].phone_number", phone.phone_number)
    for number, email in enumerate(message.email_addresses):
        yield from _filled(f"{where}.email_addresses[{number}].email_address", email.email_address)
    for number, url in enumerate(message.urls):
        yield from _web(f"{where}.urls[{number}].url", url.url)
    if message.birthday:
        try:
            datetime.strptime(message.birthday, "%Y-%m-%d")  # noqa: DTZ007 - a date has no zone
        except ValueError:
            yield Violation(f"{where}.birthday", "YYYY-MM-DD is expected")


def _validate_agent(where: str, agent: Agent) -> Iterator[Violation]:
    yield from _filled(f"{where}.display_name", agent.display_name)
    yield from _web(f"{where}.picture_url", agent.picture_url or None)


def _validate_override(where: str, override: OmniOverride) -> Iterator[Violation]:
    given = [name for name in override.__struct_fields__ if getattr(override, name) is not None]
    if len(given) != 1:
        yield _one_of(where, given)
    for content in contents(override):
        yield from _validate(f"{where}.{KIND[type(content)]}", content)
    if override.template_reference:
        yield from _validate_omni_template(f"{where}.template_reference", override.template_reference)


def _validate_specific(where: str, channel: ChannelName, specific: ChannelSpecificMessage) -> Iterator[Violation]:
    if channel in CONTRACT_CHANNELS and SPECIFIC_TO[type(specific)] != channel:
        yield Violation(f"{where}.message_type", f"not a message of {channel}")
    match specific:
        case FlowsMessage(message=flow):
            yield from _filled(f"{where}.message.flow_id", flow.flow_id)
            yield from _filled(f"{where}.message.flow_cta", flow.flow_cta)
            yield from _at_most(f"{where}.message.flow_cta", flow.flow_cta, MAX_FLOW_CALL_TO_ACTION)
            yield from _validate_interactive(f"{where}.message", flow)
        case OrderDetailsMessage(message=details):
            yield from _filled(f"{where}.message.payment.reference_id", details.payment.reference_id)
            if not details.payment.order.items:
                yield Violation(f"{where}.message.payment.order.items", "at least one item is expected")
            if len(details.payment.payment_buttons) > 2:
                yield Violation(f"{where}.message.payment.payment_buttons", "1 or 2 buttons are expected")
            yield from _validate_interactive(f"{where}.message", details)
        case OrderStatusMessage(message=status):
            yield from _filled(f"{where}.message.payment.reference_id", status.payment.reference_id)
            yield from _at_most(
                f"{where}.message.payment.order.description",
                status.payment.order.description,
                MAX_ORDER_STATUS_DESCRIPTION,
            )
            yield from _validate_interactive(f"{where}.message", status)
        case CommerceMessage(message=commerce):
            yield from _web(f"{where}.message.image.image_url", commerce.image.image_url)
        case CarouselCommerceMessage(message=carousel):
            if not carousel.carousel.list:
                yield Violation(f"{where}.message.carousel.list", "at least one card is expected")
        case LineNotificationMessage(message=notification):
            yield from _filled(f"{where}.message.template_key", notification.template_key)


def _validate_interactive(where: str, part: Flow | OrderDetails | OrderStatus) -> Iterator[Violation]:
    yield from _at_most(f"{where}.body.text", part.body.text if part.body else None, MAX_INTERACTIVE_BODY)
    yield from _at_most(f"{where}.footer.text", part.footer.text if part.footer else None, MAX_INTERACTIVE_FOOTER)
