"""Content as text, and which content a channel gets (conversation-api 5.1 and 7.4). Values are the reference's own."""

import pytest

from switchboard.channel.errors import Unsupported
from switchboard.channel.manifest import AccountOwner, Connection, CredentialSpec, Manifest, Support
from switchboard.channel_specific import Flow, FlowsMessage
from switchboard.content import (
    AppMessage,
    CalendarChoice,
    CallChoice,
    CardMessage,
    CarouselMessage,
    ChannelTemplate,
    Choice,
    ChoiceMessage,
    ContactInfoMessage,
    Content,
    Coordinates,
    ListChoice,
    ListItem,
    ListMessage,
    ListSection,
    LocationMessage,
    MediaMessage,
    OmniOverride,
    OmniTemplate,
    PersonName,
    PhoneNumber,
    Product,
    ShareLocationChoice,
    TemplateMessage,
    TextMessage,
    UrlChoice,
)
from switchboard.identity import ChannelName
from switchboard.reason import ReasonCode
from switchboard.transcode import Explicit, as_text, downgrade, float32, for_channel, select

SMS, MMS, WHATSAPP, VIBERBM, TELEGRAM, INSTAGRAM, LINE = map(
    ChannelName, ("SMS", "MMS", "WHATSAPP", "VIBERBM", "TELEGRAM", "INSTAGRAM", "LINE")
)
QUAY = LocationMessage("Find us", Coordinates(55.610479, 12.998))
CHOICES = ChoiceMessage(
    text_message=TextMessage("When shall we call?"),
    choices=(
        Choice(text_message=TextMessage("Morning")),
        Choice(url_message=UrlChoice("Book online", "https://quay.example/book")),
        Choice(call_message=CallChoice("Call us", "+46701239999")),
        Choice(location_message=QUAY),
    ),
)
BERTH_12 = CardMessage(
    title="Berth 12",
    description="Free from Friday",
    media_message=MediaMessage("https://quay.example/berth12.jpg"),
    choices=(
        Choice(text_message=TextMessage("Reserve")),
        Choice(url_message=UrlChoice("More", "https://quay.example/b12")),
    ),
)
CAROUSEL = CarouselMessage(
    cards=(
        CardMessage("Berth 12", "Free from Friday", choices=(Choice(text_message=TextMessage("Reserve")),)),
        CardMessage("Berth 14", "Free from Monday"),
    ),
    choices=(Choice(text_message=TextMessage("None")),),
)
LIST = ListMessage(
    title="Berths",
    description="Free now",
    sections=(
        ListSection(title="North", items=(ListItem(choice=ListChoice("Berth 12")),)),
        ListSection(items=(ListItem(choice=ListChoice("Berth 14")), ListItem(product=Product("rope", "m")))),
    ),
)
CONTACT = ContactInfoMessage(PersonName("Ada Quay"), (PhoneNumber("+46701"), PhoneNumber("+46702")))
MAP = "https://www.google.com/maps/search/?api=1&query=55.610477,12.998"

LAYOUTS: list[tuple[str, ChannelName, Content, str]] = [
    ("text", SMS, TextMessage("Hi"), "Hi"),
    ("media", SMS, MediaMessage("https://a.example/b.png"), "https://a.example/b.png"),
    ("location", SMS, QUAY, f"Find us: {MAP}"),
    ("location", INSTAGRAM, QUAY, f"Location: {MAP}"),
    (
        "choice",
        SMS,
        CHOICES,
        "When shall we call?\n\n> MORNING\n> Book online: https://quay.example/book\n> Call us: +46701239999\n"
        f"> Find us: {MAP}",
    ),
    (
        "choice",
        MMS,
        CHOICES,
        "When shall we call?\n> MORNING\n> Book online: https://quay.example/book\n> Call us: +46701239999\n"
        f"> Find us: {MAP}",
    ),
    (
        "choice",
        TELEGRAM,
        CHOICES,
        "When shall we call?\n\n* MORNING\n* Book online: https://quay.example/book\n* Call us: +46701239999\n"
        f"* Find us: {MAP}",
    ),
    ("choice without text", SMS, ChoiceMessage(CHOICES.choices[:1]), "> MORNING"),
    (
        "calendar and share-location choices",
        SMS,
        ChoiceMessage(
            choices=(
                Choice(calendar_message=CalendarChoice("Add", "s", "e", "t", "https://quay.example/cal")),
                Choice(share_location_message=ShareLocationChoice("Where", "https://quay.example/where")),
            )
        ),
        "> Add: https://quay.example/cal\n> Where: https://quay.example/where",
    ),
    (
        "card",
        SMS,
        BERTH_12,
        "Berth 12\nFree from Friday\nhttps://quay.example/berth12.jpg\n> RESERVE\n> More: https://quay.example/b12",
    ),
    (
        "card",
        WHATSAPP,
        BERTH_12,
        "*Berth 12*\n_Free from Friday_\n\nhttps://quay.example/berth12.jpg\n\n> RESERVE\n"
        "> More: https://quay.example/b12",
    ),
    ("card with only a title", VIBERBM, CardMessage("Berth 12"), "*Berth 12*"),
    (
        "carousel",
        SMS,
        CAROUSEL,
        "1. Berth 12\nFree from Friday\n> RESERVE\n\n2. Berth 14\nFree from Monday\n\n> NONE",
    ),
    (
        "carousel",
        MMS,
        CAROUSEL,
        "Berth 12\nFree from Friday\n> RESERVE\nBerth 14\nFree from Monday\n> NONE",
    ),
    (
        "carousel",
        VIBERBM,
        CAROUSEL,
        "1. *Berth 12*\n_Free from Friday_\n\n> RESERVE\n\n2. *Berth 14*\n_Free from Monday_\n\n> NONE",
    ),
    ("list", LINE, LIST, "Berths\nFree now\nNorth\n> Berth 12\n> Berth 14\n> rope"),
    ("contact info", SMS, CONTACT, "Ada Quay\n+46701\n+46702"),
]


@pytest.mark.parametrize(("channel", "content", "text"), [row[1:] for row in LAYOUTS], ids=lambda _: "")
def test_content_is_laid_out_as_the_channel_does(channel: ChannelName, content: Content, text: str) -> None:
    assert as_text(content, channel) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (55.610479, "55.610477"), (12.998, "12.998"), (55, "55"), (0, "0"), (-0.5, "-0.5"), (1e-7, "0.0000001"),
        (179.99999999, "180"), (12.9866, "12.9866"),
    ],
)  # fmt: skip
def test_coordinates_are_the_shortest_decimal_of_a_32_bit_float(value: float, text: str) -> None:
    assert float32(value) == text


FLOW = FlowsMessage(Flow("1", "Open"))
ALL = AppMessage(
    text_message=TextMessage("generic"),
    explicit_channel_message={SMS: "raw"},
    channel_specific_message={SMS: FLOW, WHATSAPP: FLOW},
    explicit_channel_omni_message={
        SMS: OmniOverride(text_message=TextMessage("sms")),
        WHATSAPP: OmniOverride(text_message=TextMessage("whatsapp")),
        MMS: OmniOverride(media_message=MediaMessage("https://a.example")),
        LINE: OmniOverride(template_reference=OmniTemplate("t", "latest")),
    },
)


@pytest.mark.parametrize(
    ("channel", "selected"),
    [
        (SMS, Explicit("raw")),
        (WHATSAPP, FLOW),
        (MMS, MediaMessage("https://a.example")),
        (LINE, TemplateMessage(omni_template=OmniTemplate("t", "latest"))),
        (TELEGRAM, TextMessage("generic")),
    ],
)
def test_a_channel_gets_its_own_content_before_the_generic_one(channel: ChannelName, selected: object) -> None:
    assert select(ALL, channel) == selected


def manifest(channel: ChannelName, **content: Support) -> Manifest:
    return Manifest(
        channel=channel,
        title=channel,
        owner=AccountOwner.APP,
        connection=Connection.REQUEST,
        credentials=CredentialSpec("x", ()),
        normal_identity=str,
        content=content,
    )


TEXT_ONLY = manifest(SMS, text_message=Support.NATIVE, card_message=Support.TEXT)


def test_content_the_channel_carries_is_left_as_it_is() -> None:
    assert for_channel(AppMessage(text_message=TextMessage("Hi")), TEXT_ONLY) == AppMessage(
        text_message=TextMessage("Hi")
    )


def test_content_the_channel_does_not_carry_becomes_text() -> None:
    assert for_channel(AppMessage(card_message=CardMessage("Berth", "12")), TEXT_ONLY) == AppMessage(
        text_message=TextMessage("Berth\n12")
    )


def test_an_explicit_payload_goes_out_alone() -> None:
    assert for_channel(ALL, TEXT_ONLY) == AppMessage(explicit_channel_message={SMS: "raw"})


def test_a_channels_own_type_goes_out_where_the_channel_knows_it() -> None:
    knows = manifest(WHATSAPP, channel_specific_message=Support.NATIVE)

    assert for_channel(ALL, knows) == AppMessage(channel_specific_message={WHATSAPP: FLOW})


def test_a_channels_template_goes_out_where_the_channel_knows_templates() -> None:
    template = TemplateMessage(channel_template={WHATSAPP: ChannelTemplate("hello")})

    assert downgrade(template, manifest(WHATSAPP, template_message=Support.NATIVE)) == template


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (AppMessage(list_message=LIST), ReasonCode.UNSUPPORTED_OPERATION),
        (AppMessage(channel_specific_message={SMS: FLOW}), ReasonCode.UNSUPPORTED_OPERATION),
        (AppMessage(explicit_channel_message={MMS: "raw"}), ReasonCode.BAD_REQUEST),
        (
            AppMessage(template_message=TemplateMessage(channel_template={SMS: ChannelTemplate("t")})),
            ReasonCode.UNSUPPORTED_OPERATION,
        ),
        (
            AppMessage(template_message=TemplateMessage(omni_template=OmniTemplate("t", "1"))),
            ReasonCode.TEMPLATE_NOT_FOUND,
        ),
    ],
)
def test_what_a_channel_cannot_carry_even_as_text_is_refused_with_a_reason(
    message: AppMessage, code: ReasonCode
) -> None:
    with pytest.raises(Unsupported) as refused:
        for_channel(message, TEXT_ONLY)

    assert refused.value.reason.code is code


def test_a_template_has_no_text_form() -> None:
    with pytest.raises(Unsupported):
        as_text(TemplateMessage(), SMS)
