"""Choices answered by typing: which texts are answers, and to what (conversation-api 7.5)."""

import msgspec
import pytest

from switchboard.content import AppMessage
from switchboard.identity import ChannelName
from switchboard.rules.choices import answered, answers

KEY = b"k" * 32
SMS = ChannelName("SMS")


def message(content):
    return msgspec.json.decode(msgspec.json.encode(content), type=AppMessage)


FERRY = message(
    {
        "choice_message": {
            "text_message": {"text": "Which ferry?"},
            "choices": [
                {"text_message": {"text": "Noon"}, "postback_data": "noon-1"},
                {"text_message": {"text": "Six o'clock"}},
                {"url_message": {"title": "Timetable", "url": "https://harbour.example/t"}},
            ],
        }
    }
)


@pytest.mark.parametrize(
    ("text", "postback"),
    [
        ("Noon", "noon-1"),
        ("noon", "noon-1"),
        ("  NOON ", "noon-1"),
        ("six  o'clock", "m1_Six o'clock"),
        ("Timetable", None),
        ("Noon please", None),
        ("", None),
    ],
)
def test_a_text_that_equals_a_caption_is_the_answer(text, postback):
    assert answered(text, answers(FERRY, "m1", SMS, KEY), KEY) == postback


def test_a_caption_that_two_choices_share_answers_neither():
    twice = message(
        {
            "choice_message": {
                "choices": [
                    {"text_message": {"text": "Yes"}, "postback_data": "a"},
                    {"text_message": {"text": "yes"}, "postback_data": "b"},
                ]
            }
        }
    )

    assert answered("yes", answers(twice, "m1", SMS, KEY), KEY) is None


def test_cards_carousels_and_lists_are_answered_too():
    choice = {"text_message": {"text": "Book"}, "postback_data": "book"}
    card = {"title": "Ferry", "choices": [choice]}
    listed = {"title": "Ferries", "sections": [{"items": [{"choice": {"title": "Book", "postback_data": "book"}}]}]}
    for content in ({"card_message": card}, {"carousel_message": {"cards": [card]}}, {"list_message": listed}):
        assert answered("book", answers(message(content), "m1", SMS, KEY), KEY) == "book"


def test_what_counts_is_what_the_channel_was_sent():
    own = message(
        {
            "text_message": {"text": "Which ferry?"},
            "explicit_channel_omni_message": {
                "SMS": {"choice_message": {"choices": [{"text_message": {"text": "Noon"}, "postback_data": "n"}]}}
            },
        }
    )

    assert answered("noon", answers(own, "m1", SMS, KEY), KEY) == "n"
    assert answers(own, "m1", ChannelName("TELEGRAM"), KEY) == ()


def test_captions_are_kept_as_hashes_of_this_installation():
    kept = msgspec.json.encode(answers(FERRY, "m1", SMS, KEY))

    assert b"Noon" not in kept
    assert answered("Noon", answers(FERRY, "m1", SMS, b"another" * 4), KEY) is None
