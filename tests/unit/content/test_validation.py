"""What makes content a bad request, whatever channel it goes to (conversation-api 15.1, rows 7a to 15)."""

from typing import Any

import msgspec
import pytest

from switchboard.content import AppEvent, AppMessage
from switchboard.identity import ChannelName
from switchboard.validation import validate, validate_event, well_formed_url

TEXT_CHOICE = {"text_message": {"text": "Morning"}}
CARD = {"title": "Berth 12"}
LIST_CHOICE = {"choice": {"title": "Berth 12"}}
PRODUCT = {"product": {"id": "rope", "marketplace": "m"}}
ORDER = {
    "type": "br", "reference_id": "r", "type_of_goods": "digital-goods", "total_amount_value": 1,
    "order": {"subtotal_value": 1, "tax_value": 0,
              "items": [{"retailer_id": "r", "name": "n", "amount_value": 1, "quantity": 1}]},
}  # fmt: skip
CALENDAR = {
    "title": "t", "event_start": "2026-05-01T10:00:00Z", "event_end": "2026-05-01T11:00:00+02:00", "event_title": "e",
    "fallback_url": "https://quay.example/cal",
}  # fmt: skip
AT_12 = {"title": "Quay", "coordinates": {"latitude": 55.6, "longitude": 12.9}}


def choice(**fields: Any) -> dict[str, Any]:
    return {"choice_message": {"choices": [fields]}}


def choices(count: int) -> list[dict[str, Any]]:
    return [TEXT_CHOICE] * count


def listed(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"list_message": {"title": "t", "sections": [{"items": list(items)}], **fields}}


def specific(channel: str, kind: str, message: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_message": {"text": "x"},
        "channel_specific_message": {channel: {"message_type": kind, "message": message}},
    }


GOOD: list[dict[str, Any]] = [
    {"text_message": {"text": "Hi"}},
    {"media_message": {"url": "https://quay.example/a.png", "thumbnail_url": "", "filename_override": "a.png"}},
    {"card_message": CARD},
    {"card_message": {"media_message": {"url": "HTTP://quay.example"}, "height": "TALL", "choices": choices(10)}},
    {"carousel_message": {"cards": [CARD] * 10, "choices": choices(3)}},
    {"choice_message": {"choices": choices(10), "text_message": {"text": "?"},
                        "message_properties": {"whatsapp_footer": "f"}}},
    choice(url_message={"title": "t", "url": "harbour://berth/12"}, postback_data="p", display_mode="PERSISTENT"),
    choice(call_message={"title": "t", "phone_number": "+46701"}),
    choice(location_message=AT_12),
    choice(calendar_message=CALENDAR),
    choice(share_location_message={"title": "t", "fallback_url": "https://quay.example"}),
    {"location_message": {**AT_12, "coordinates": {"latitude": -90, "longitude": 180}, "label": "l"}},
    listed(LIST_CHOICE, {"choice": {"title": "b", "media": {"url": "https://quay.example"}}}),
    listed(PRODUCT, message_properties={"catalog_id": "c"}),
    {"template_message": {"omni_template": {"template_id": "t", "version": "latest", "parameters": {"aB": "c"}}}},
    {"template_message": {"channel_template": {"WHATSAPP": {"template_id": "t"}}}},
    {"contact_info_message": {"name": {"full_name": "Ada"}, "phone_numbers": [{"phone_number": "+46"}],
                              "birthday": "1815-12-10", "urls": [{"url": "https://quay.example"}]}},
    {"text_message": {"text": "x"}, "agent": {"display_name": "Ada", "type": "HUMAN"}},
    {"text_message": {"text": "x"}, "explicit_channel_message": {"SMS": "raw"},
     "explicit_channel_omni_message": {"RCS": {"card_message": CARD},
                                       "LINE": {"template_reference": {"template_id": "t", "version": "1"}}}},
    {"explicit_channel_message": {"SMS": "raw"}},
    specific("WHATSAPP", "FLOWS", {"flow_id": "1", "flow_cta": "x" * 20, "flow_mode": "draft",
                                   "flow_action_payload": {"screen": "s", "data": {"aB": [1]}},
                                   "header": {"type": "image", "image": {"link": "https://quay.example"}},
                                   "body": {"text": "b"}, "footer": {"text": "f"}}),
    specific("WHATSAPP", "ORDER_DETAILS", {"payment": ORDER}),
    specific("WHATSAPP", "ORDER_STATUS", {"payment": {"reference_id": "r", "order": {"status": "shipped"}}}),
    specific("KAKAOTALK", "COMMERCE", {"image": {"image_url": "https://quay.example"},
                                       "buttons": [{"type": "BK", "name": "n"}],
                                       "coupon": {"type": "FREE_COUPON", "title": "t"}}),
    specific("KAKAOTALK", "CAROUSEL_COMMERCE", {"carousel": {"list": [
        {"image": {"image_url": "https://quay.example"}, "buttons": []}]}}),
    specific("LINE", "NOTIFICATION_MESSAGE_TEMPLATE", {"template_key": "k", "body": {"items": [
        {"item_key": "a", "content": "b"}]}}),
]  # fmt: skip


@pytest.mark.parametrize("given", GOOD, ids=range(len(GOOD)))
def test_good_content_is_good_and_comes_back_as_it_was_given(given: dict[str, Any]) -> None:
    message = msgspec.json.decode(msgspec.json.encode(given), type=AppMessage)

    assert validate(message) == []
    assert msgspec.json.decode(msgspec.json.encode(message)) == given


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({}, [""]),
    ({"agent": {"display_name": "Ada", "type": "BOT"}}, [""]),
    ({"text_message": {"text": "x"}, "location_message": AT_12}, [""]),
    ({"text_message": {"text": ""}}, ["text_message.text"]),
    ({"media_message": {"url": "quay.example/a.png"}}, ["media_message.url"]),
    ({"media_message": {"url": "https://quay.example", "thumbnail_url": "x"}}, ["media_message.thumbnail_url"]),
    ({"card_message": {}}, ["card_message.title"]),
    ({"card_message": {**CARD, "choices": choices(11)}}, ["card_message.choices"]),
    ({"card_message": {"media_message": {"url": "x"}}}, ["card_message.media_message.url"]),
    ({"carousel_message": {"cards": []}}, ["carousel_message.cards"]),
    ({"carousel_message": {"cards": [CARD] * 11}}, ["carousel_message.cards"]),
    ({"carousel_message": {"cards": [CARD, {}]}}, ["carousel_message.cards[1].title"]),
    ({"carousel_message": {"cards": [CARD], "choices": choices(4)}}, ["carousel_message.choices"]),
    ({"choice_message": {"choices": []}}, ["choice_message.choices"]),
    ({"choice_message": {"choices": choices(11)}}, ["choice_message.choices"]),
    ({"choice_message": {"choices": choices(1), "text_message": {"text": ""}}}, ["choice_message.text_message.text"]),
    (choice(), ["choice_message.choices[0]"]),
    (choice(postback_data="p"), ["choice_message.choices[0]"]),
    (choice(**TEXT_CHOICE, location_message=AT_12), ["choice_message.choices[0]"]),
    (choice(text_message={"text": ""}), ["choice_message.choices[0].text_message.text"]),
    (choice(url_message={"title": "", "url": "x y"}),
     ["choice_message.choices[0].url_message.title", "choice_message.choices[0].url_message.url"]),
    (choice(call_message={"title": "t", "phone_number": ""}),
     ["choice_message.choices[0].call_message.phone_number"]),
    (choice(calendar_message={**CALENDAR, "event_start": "tomorrow", "event_end": "2026-05-01T10:00:00"}),
     ["choice_message.choices[0].calendar_message.event_start",
      "choice_message.choices[0].calendar_message.event_end"]),
    (choice(share_location_message={"title": "t", "fallback_url": "x"}),
     ["choice_message.choices[0].share_location_message.fallback_url"]),
    ({"location_message": {"title": "", "coordinates": {"latitude": 90.1, "longitude": -180.1}}},
     ["location_message.title", "location_message.coordinates.latitude", "location_message.coordinates.longitude"]),
    (listed(), ["list_message.sections[0].items"]),
    ({"list_message": {"title": "", "sections": []}}, ["list_message.title", "list_message.sections"]),
    (listed({}), ["list_message.sections[0].items[0]"]),
    (listed({**LIST_CHOICE, **PRODUCT}, message_properties={"catalog_id": "c"}),
     ["list_message.sections[0].items[0]", "list_message.sections"]),
    (listed(LIST_CHOICE, PRODUCT, message_properties={"catalog_id": "c"}), ["list_message.sections"]),
    (listed(PRODUCT), ["list_message.message_properties.catalog_id"]),
    (listed(*[LIST_CHOICE] * 11), ["list_message.sections"]),
    ({"template_message": {}}, ["template_message"]),
    ({"template_message": {"omni_template": {"template_id": "", "version": ""}}},
     ["template_message.omni_template.template_id", "template_message.omni_template.version"]),
    ({"template_message": {"channel_template": {"PIGEON": {"template_id": "t"}}}},
     ["template_message.channel_template.PIGEON"]),
    ({"contact_info_message": {"name": {"full_name": ""}, "phone_numbers": []}},
     ["contact_info_message.name.full_name", "contact_info_message.phone_numbers"]),
    ({"contact_info_message": {"name": {"full_name": "A"}, "phone_numbers": [{"phone_number": ""}],
                               "birthday": "10.12.1815", "email_addresses": [{"email_address": ""}],
                               "urls": [{"url": "x"}]}},
     ["contact_info_message.phone_numbers[0].phone_number", "contact_info_message.email_addresses[0].email_address",
      "contact_info_message.urls[0].url", "contact_info_message.birthday"]),
    ({"text_message": {"text": "x"}, "agent": {"display_name": "", "type": "BOT", "picture_url": "x"}},
     ["agent.display_name", "agent.picture_url"]),
    ({"text_message": {"text": "x"}, "explicit_channel_message": {"PIGEON": "raw", "SMS": ""}},
     ["explicit_channel_message.PIGEON", "explicit_channel_message.SMS"]),
    ({"text_message": {"text": "x"}, "explicit_channel_omni_message": {"SMS": {}, "CHANNEL_UNSPECIFIED":
      {"text_message": {"text": "y"}}}},
     ["explicit_channel_omni_message.CHANNEL_UNSPECIFIED", "explicit_channel_omni_message.SMS"]),
    ({"text_message": {"text": "x"}, "explicit_channel_omni_message": {"SMS": {"card_message": {}}}},
     ["explicit_channel_omni_message.SMS.card_message.title"]),
    (specific("SMS", "FLOWS", {"flow_id": "1", "flow_cta": "x"}), ["channel_specific_message.SMS.message_type"]),
    (specific("PIGEON", "FLOWS", {"flow_id": "1", "flow_cta": "x"}), ["channel_specific_message.PIGEON"]),
    (specific("WHATSAPP", "FLOWS", {"flow_id": "", "flow_cta": "x" * 21, "body": {"text": "x" * 1025},
                                    "footer": {"text": "x" * 61}}),
     [f"channel_specific_message.WHATSAPP.message.{name}"
      for name in ("flow_id", "flow_cta", "body.text", "footer.text")]),
    (specific("WHATSAPP", "ORDER_STATUS", {"payment": {"reference_id": "", "order": {
        "status": "pending", "description": "x" * 121}}}),
     ["channel_specific_message.WHATSAPP.message.payment.reference_id",
      "channel_specific_message.WHATSAPP.message.payment.order.description"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "fields"), BAD, ids=range(len(BAD)))
def test_bad_content_is_told_by_field(given: dict[str, Any], fields: list[str]) -> None:
    message = msgspec.json.decode(msgspec.json.encode(given), type=AppMessage)

    assert [violation.field for violation in validate(message)] == fields


def test_a_message_without_generic_content_needs_some_for_each_channel_tried() -> None:
    sms, rcs = ChannelName("SMS"), ChannelName("RCS")
    message = AppMessage(explicit_channel_message={sms: "raw"})

    assert validate(message, [sms]) == []
    assert [violation.description for violation in validate(message, [sms, rcs])] == [
        "no content for RCS: give a generic content or one for each channel"
    ]


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ({"composing_event": {}}, []),
        ({"composing_end_event": {}}, []),
        ({"comment_reply_event": {"text": "x"}}, []),
        ({"agent_joined_event": {"agent": {"display_name": "Ada", "type": "HUMAN"}}}, []),
        ({"generic_event": {"payload": {"aB": [1, None]}}}, []),
        ({}, ["event"]),
        ({"composing_event": {}, "composing_end_event": {}}, ["event"]),
        ({"comment_reply_event": {"text": ""}}, ["comment_reply_event.text"]),
        ({"agent_left_event": {"agent": {"display_name": "", "type": "BOT"}}}, ["agent_left_event.agent.display_name"]),
    ],
)
def test_events_are_exactly_one_and_come_back_as_they_were_given(event: dict[str, Any], fields: list[str]) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(event), type=AppEvent)

    assert [violation.field for violation in validate_event(decoded)] == fields
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == event


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://quay.example", True), ("http://quay.example:8080/a?b=c#d", True), ("HTTPS://QUAY.EXAMPLE", True),
        ("https://[::1]:80/", True), ("https://user@quay.example", True), ("http://a/%20", True),
        ("", False), ("quay.example", False), ("//quay.example", False), ("https://", False), ("https:///x", False),
        ("ftp://quay.example", False), ("javascript:alert(1)", False), ("https://quay.example/a b", False),
        ("https://quay.example/\n", False), ("https://quay.example:0", False), ("https://quay.example:x", False),
        ("https://quay.example:99999", False), ("https://[::1", False), ("https://quay.example/\x00", False),
    ],
)  # fmt: skip
def test_urls_are_absolute_with_a_host(url: str, good: bool) -> None:
    assert well_formed_url(url) is good
