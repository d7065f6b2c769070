"""What messages and events hold: one set of types for HTTP, topics and channels (conversation-api 5 and 6).

A field that was not given is None or empty and does not appear on the wire, so content comes back as it was
given, without null siblings. What a type can check (names, types, required fields, enums) is checked when content
is decoded; the other rules are in `switchboard.validation`.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from msgspec import field

from switchboard.channel_specific import ChannelSpecificMessage
from switchboard.identity import ChannelName
from switchboard.wire import Wire

# -- parts of messages -----------------------------------------------------------------------------------


class Height(StrEnum):
    """How tall a card's media is shown, on RCS."""

    UNSPECIFIED_HEIGHT = "UNSPECIFIED_HEIGHT"
    SHORT = "SHORT"
    MEDIUM = "MEDIUM"
    TALL = "TALL"


class DisplayMode(StrEnum):
    """Whether a choice stays on screen."""

    DISPLAY_MODE_UNSPECIFIED = "DISPLAY_MODE_UNSPECIFIED"
    PERSISTENT = "PERSISTENT"


class AgentType(StrEnum):
    UNKNOWN_AGENT_TYPE = "UNKNOWN_AGENT_TYPE"
    HUMAN = "HUMAN"
    BOT = "BOT"


class Agent(Wire, frozen=True):
    """Who speaks for the app, on channels that can show it."""

    display_name: str
    type: AgentType
    picture_url: str | None = None


class TextMessage(Wire, frozen=True):
    #: Any length: the limits are the channel's (conversation-api 7.5).
    text: str


class MediaMessage(Wire, frozen=True):
    #: http or https. Its type follows from the response's content type or the extension.
    url: str
    thumbnail_url: str | None = None
    #: On channels that show a file name.
    filename_override: str | None = None


class Coordinates(Wire, frozen=True):
    """A point on earth in degrees, known to channels as 32-bit floats (conversation-api 4.1)."""

    latitude: float | int
    longitude: float | int


class LocationMessage(Wire, frozen=True):
    title: str
    coordinates: Coordinates
    label: str | None = None


class UrlChoice(Wire, frozen=True):
    title: str
    url: str


class CallChoice(Wire, frozen=True):
    title: str
    #: E.164.
    phone_number: str


class CalendarChoice(Wire, frozen=True):
    title: str
    #: RFC 3339, kept as given.
    event_start: str
    #: RFC 3339, kept as given.
    event_end: str
    event_title: str
    #: Where channels without calendars lead.
    fallback_url: str
    event_description: str | None = None


class ShareLocationChoice(Wire, frozen=True):
    title: str
    #: Where channels that cannot ask for a location lead.
    fallback_url: str


class Choice(Wire, frozen=True):
    """One thing a person can press: exactly one of the six kinds."""

    text_message: TextMessage | None = None
    url_message: UrlChoice | None = None
    call_message: CallChoice | None = None
    location_message: LocationMessage | None = None
    calendar_message: CalendarChoice | None = None
    share_location_message: ShareLocationChoice | None = None
    #: Comes back in the person's `choice_response_message`. None: `postback_of` makes it.
    postback_data: str | None = None
    display_mode: DisplayMode | None = None

    @property
    def caption(self) -> str:
        """What the person reads on it: its text or its title."""
        if self.text_message:
            return self.text_message.text
        kinds = (
            self.url_message,
            self.call_message,
            self.location_message,
            self.calendar_message,
            self.share_location_message,
        )
        return next((kind.title for kind in kinds if kind), "")


def postback_of(choice: Choice, message_id: str) -> str:
    """What comes back when `choice` of the message is pressed (conversation-api 5.6)."""
    return f"{message_id}_{choice.caption}" if choice.postback_data is None else choice.postback_data


class ChoiceProperties(Wire, frozen=True):
    whatsapp_footer: str | None = None


class ChoiceMessage(Wire, frozen=True):
    choices: tuple[Choice, ...]
    text_message: TextMessage | None = None
    message_properties: ChoiceProperties | None = None


class CardProperties(Wire, frozen=True):
    #: Shown on WhatsApp instead of the title.
    whatsapp_header: str | None = None


class CardMessage(Wire, frozen=True):
    title: str | None = None
    description: str | None = None
    media_message: MediaMessage | None = None
    choices: tuple[Choice, ...] = ()
    height: Height | None = None
    message_properties: CardProperties | None = None


class CarouselMessage(Wire, frozen=True):
    cards: tuple[CardMessage, ...]
    #: Outer choices, below all cards.
    choices: tuple[Choice, ...] = ()


class ListChoice(Wire, frozen=True):
    title: str
    description: str | None = None
    media: MediaMessage | None = None
    postback_data: str | None = None


class Product(Wire, frozen=True):
    """An item of a catalogue. The last three are only in what people ordered."""

    id: str
    marketplace: str
    quantity: int | None = None
    item_price: float | int | None = None
    currency: str | None = None


class ListItem(Wire, frozen=True):
    """Exactly one of the two; all items of a message are of one kind."""

    choice: ListChoice | None = None
    product: Product | None = None


class ListSection(Wire, frozen=True):
    items: tuple[ListItem, ...]
    title: str | None = None


class ListProperties(Wire, frozen=True):
    #: Required for products.
    catalog_id: str | None = None
    #: The caption of the button that opens the list.
    menu: str | None = None
    whatsapp_header: str | None = None


class ListMessage(Wire, frozen=True):
    title: str
    sections: tuple[ListSection, ...]
    description: str | None = None
    media: MediaMessage | None = None
    message_properties: ListProperties | None = None


class ChannelTemplate(Wire, frozen=True):
    """A template kept by a channel's provider."""

    template_id: str
    version: str | None = None
    language_code: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)


class OmniTemplate(Wire, frozen=True):
    """A template kept here (conversation-api 4.12), by version or "latest"."""

    template_id: str
    version: str
    language_code: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)


class TemplateMessage(Wire, frozen=True):
    """At least one of the two. The channel's template wins on its channel."""

    channel_template: dict[ChannelName, ChannelTemplate] = field(default_factory=dict)
    omni_template: OmniTemplate | None = None


class PersonName(Wire, frozen=True):
    full_name: str
    first_name: str | None = None
    last_name: str | None = None
    middle_name: str | None = None
    prefix: str | None = None
    suffix: str | None = None


class PhoneNumber(Wire, frozen=True):
    phone_number: str
    type: str | None = None


class Address(Wire, frozen=True):
    city: str | None = None
    country: str | None = None
    state: str | None = None
    zip: str | None = None
    type: str | None = None
    country_code: str | None = None


class EmailAddress(Wire, frozen=True):
    email_address: str
    type: str | None = None


class Organization(Wire, frozen=True):
    company: str | None = None
    department: str | None = None
    title: str | None = None


class ContactUrl(Wire, frozen=True):
    url: str
    type: str | None = None


class ContactInfoMessage(Wire, frozen=True):
    """A business card."""

    name: PersonName
    phone_numbers: tuple[PhoneNumber, ...]
    addresses: tuple[Address, ...] = ()
    email_addresses: tuple[EmailAddress, ...] = ()
    organization: Organization | None = None
    urls: tuple[ContactUrl, ...] = ()
    #: YYYY-MM-DD.
    birthday: str | None = None


# -- messages from the app to a person (conversation-api 5.1) --------------------------------------------


Content: TypeAlias = (
    TextMessage
    | MediaMessage
    | CardMessage
    | CarouselMessage
    | ChoiceMessage
    | LocationMessage
    | ListMessage
    | TemplateMessage
    | ContactInfoMessage
)

#: The field of `AppMessage` that holds each kind: the name manifests tell support by.
KIND: Final[Mapping[type, str]] = {
    TextMessage: "text_message",
    MediaMessage: "media_message",
    CardMessage: "card_message",
    CarouselMessage: "carousel_message",
    ChoiceMessage: "choice_message",
    LocationMessage: "location_message",
    ListMessage: "list_message",
    TemplateMessage: "template_message",
    ContactInfoMessage: "contact_info_message",
}


class OmniOverride(Wire, frozen=True):
    """What one channel gets instead of the generic content: exactly one of the fields."""

    text_message: TextMessage | None = None
    media_message: MediaMessage | None = None
    card_message: CardMessage | None = None
    carousel_message: CarouselMessage | None = None
    choice_message: ChoiceMessage | None = None
    location_message: LocationMessage | None = None
    list_message: ListMessage | None = None
    contact_info_message: ContactInfoMessage | None = None
    template_reference: OmniTemplate | None = None

    @property
    def content(self) -> Content | None:
        """The override's content; a template reference as the message it stands for."""
        if self.template_reference:
            return TemplateMessage(omni_template=self.template_reference)
        return next(contents(self), None)


class AppMessage(Wire, frozen=True):
    """What an app sends: one generic content, and what single channels get instead."""

    text_message: TextMessage | None = None
    media_message: MediaMessage | None = None
    card_message: CardMessage | None = None
    carousel_message: CarouselMessage | None = None
    choice_message: ChoiceMessage | None = None
    location_message: LocationMessage | None = None
    list_message: ListMessage | None = None
    template_message: TemplateMessage | None = None
    contact_info_message: ContactInfoMessage | None = None
    #: The channel's own payload, as text: goes out as it is.
    explicit_channel_message: dict[ChannelName, str] = field(default_factory=dict)
    #: Other generic content for a channel.
    explicit_channel_omni_message: dict[ChannelName, OmniOverride] = field(default_factory=dict)
    #: Content that only one channel knows.
    channel_specific_message: dict[ChannelName, ChannelSpecificMessage] = field(default_factory=dict)
    agent: Agent | None = None

    @property
    def content(self) -> Content | None:
        """The generic content. None if there is only content for single channels."""
        return next(contents(self), None)


def contents(message: AppMessage | OmniOverride) -> Iterator[Content]:
    """Every generic content that is given. More than one is a bad request."""
    for name in KIND.values():
        content: Content | None = getattr(message, name, None)
        if content is not None:
            yield content


def of_content(content: Content) -> AppMessage:
    """The app message that holds just this content."""
    fields: dict[str, Any] = {KIND[type(content)]: content}
    return AppMessage(**fields)


# -- messages from a person to the app (conversation-api 6.1) --------------------------------------------


class MediaCardMessage(Wire, frozen=True):
    """Media with words to it."""

    url: str
    caption: str | None = None


class ChoiceResponseMessage(Wire, frozen=True):
    #: The app's message with the choice.
    message_id: str
    postback_data: str


class FallbackReason(Wire, frozen=True):
    """A reason as contact messages carry it; codes are kept as they came."""

    code: str
    description: str = ""
    sub_code: str = "UNSPECIFIED_SUB_CODE"
    channel_code: str = ""


class FallbackMessage(Wire, frozen=True):
    """What could not be mapped: the channel's own payload, as text."""

    raw_message: str
    reason: FallbackReason | None = None


class ProductResponseMessage(Wire, frozen=True):
    products: tuple[Product, ...]
    title: str | None = None
    catalog_id: str | None = None


class NfmReply(Wire, frozen=True):
    """What a person filled in: `name` is "flow" or "address_message"."""

    name: str
    response_json: str
    body: str


class NfmReplyContent(Wire, frozen=True, tag_field="type", tag="nfm_reply"):
    nfm_reply: NfmReply


class NfmReplyMessage(Wire, frozen=True, tag_field="message_type", tag="nfm_reply"):
    message: NfmReplyContent


class ReplyTo(Wire, frozen=True):
    message_id: str


class ContactMessage(Wire, frozen=True):
    """What a person sends: exactly one content, and what it replies to."""

    text_message: TextMessage | None = None
    media_message: MediaMessage | None = None
    media_card_message: MediaCardMessage | None = None
    location_message: LocationMessage | None = None
    choice_response_message: ChoiceResponseMessage | None = None
    fallback_message: FallbackMessage | None = None
    product_response_message: ProductResponseMessage | None = None
    channel_specific_message: NfmReplyMessage | None = None
    reply_to: ReplyTo | None = None


# -- events (conversation-api 6.2) -----------------------------------------------------------------------


class Empty(Wire, frozen=True):
    """An event that says all by its name."""


class CommentReply(Wire, frozen=True):
    text: str


class AgentEvent(Wire, frozen=True):
    agent: Agent


class GenericEvent(Wire, frozen=True):
    #: Free-form: kept as it is.
    payload: dict[str, Any]


class AppEvent(Wire, frozen=True):
    """What an app tells a person besides messages: exactly one of the fields."""

    composing_event: Empty | None = None
    composing_end_event: Empty | None = None
    comment_reply_event: CommentReply | None = None
    agent_joined_event: AgentEvent | None = None
    agent_left_event: AgentEvent | None = None
    generic_event: GenericEvent | None = None


class CommentType(StrEnum):
    FEED = "FEED"
    LIVE = "LIVE"


class CommentEvent(Wire, frozen=True):
    text: str
    id: str | None = None
    comment_type: CommentType | None = None
    #: A link to what was commented on.
    commented_on: str | None = None
    user: str | None = None


class ContactEvent(Wire, frozen=True):
    """What a person does besides writing: exactly one of the fields."""

    composing_event: Empty | None = None
    composing_end_event: Empty | None = None
    conversation_deleted_event: Empty | None = None
    comment_event: CommentEvent | None = None
    generic_event: GenericEvent | None = None


class PaymentStatus(StrEnum):
    UNKNOWN = "PAYMENT_STATUS_UNKNOWN"
    NEW = "PAYMENT_STATUS_NEW"
    PENDING = "PAYMENT_STATUS_PENDING"
    CAPTURED = "PAYMENT_STATUS_CAPTURED"
    CANCELED = "PAYMENT_STATUS_CANCELED"
    FAILED = "PAYMENT_STATUS_FAILED"


class PaymentTransactionStatus(StrEnum):
    UNKNOWN = "PAYMENT_STATUS_TRANSACTION_UNKNOWN"
    PENDING = "PAYMENT_STATUS_TRANSACTION_PENDING"
    FAILED = "PAYMENT_STATUS_TRANSACTION_FAILED"
    SUCCESS = "PAYMENT_STATUS_TRANSACTION_SUCCESS"
    CANCELED = "PAYMENT_STATUS_TRANSACTION_CANCELED"


class PaymentStatusUpdate(Wire, frozen=True):
    reference_id: str
    payment_status: PaymentStatus
    payment_transaction_status: PaymentTransactionStatus | None = None
    payment_transaction_id: str | None = None


class ReactionAction(StrEnum):
    UNKNOWN = "REACTION_ACTION_UNKNOWN"
    REACT = "REACTION_ACTION_REACT"
    UNREACT = "REACTION_ACTION_UNREACT"


class Reaction(Wire, frozen=True):
    emoji: str
    action: ReactionAction
    message_id: str
    reaction_category: str | None = None


class ShortlinkActivated(Wire, frozen=True):
    payload: str | None = None
    title: str | None = None
    ref: str | None = None
    source: str | None = None
    type: str | None = None
    existing_thread: bool | None = None


class ContactMessageEvent(Wire, frozen=True):
    """What a person does to a message: exactly one of the fields."""

    payment_status_update_event: PaymentStatusUpdate | None = None
    reaction_event: Reaction | None = None
    shortlink_activated_event: ShortlinkActivated | None = None
