"""Keywords, lists and what they block, by tables (conversation-api 14)."""

import pytest

from switchboard.rules.consent import (
    KEYWORDS,
    TEXTS,
    ConsentList,
    ConsentMode,
    ConsentSettings,
    ContentType,
    Keyword,
    Request,
    Wish,
    confirmation,
    is_blocked,
    read_request,
)

ON = ConsentSettings(ConsentMode.PRIMARY)
ALL, MARKETING, NOTIFICATION = ConsentList
UNKNOWN_CONTENT, MARKETING_CONTENT, NOTIFICATION_CONTENT = ContentType


@pytest.mark.parametrize(
    ("text", "wish", "list_type", "language"),
    [
        ("STOP", Wish.OPT_OUT, ALL, "en"),
        ("stop", Wish.OPT_OUT, ALL, "en"),
        ("  Stop \n", Wish.OPT_OUT, ALL, "en"),
        ("STOP MARKETING", Wish.OPT_OUT, MARKETING, "en"),
        ("stop  notification", Wish.OPT_OUT, NOTIFICATION, "en"),
        ("UNSUBSCRIBE", Wish.OPT_OUT, ALL, "en"),
        ("OptOut_All_EN", Wish.OPT_OUT, ALL, "en"),
        ("STOPALL", Wish.OPT_OUT, ALL, "en"),
        ("cancel", Wish.OPT_OUT, ALL, "en"),
        ("END", Wish.OPT_OUT, ALL, "en"),
        ("Quit", Wish.OPT_OUT, ALL, "en"),
        ("START", Wish.OPT_IN, ALL, "en"),
        ("START MARKETING", Wish.OPT_IN, MARKETING, "en"),
        ("SUBSCRIBE", Wish.OPT_IN, ALL, "en"),
        ("OptIn_All_EN", Wish.OPT_IN, ALL, "en"),
        ("HELP", Wish.HELP, ALL, "en"),
        ("DETENER", Wish.OPT_OUT, ALL, "es"),
        ("salir", Wish.OPT_OUT, ALL, "es"),
        ("VOLVER", Wish.OPT_IN, ALL, "es"),
        ("RECIBIR", Wish.OPT_IN, ALL, "es"),
        ("PARAR", Wish.OPT_OUT, ALL, "pt"),
        ("CANCELAR", Wish.OPT_OUT, ALL, "pt"),
        ("VOLTAR", Wish.OPT_IN, ALL, "pt"),
        ("RECEBER", Wish.OPT_IN, ALL, "pt"),
    ],
)
def test_a_text_that_is_a_keyword_asks_for_something(text, wish, list_type, language):
    assert read_request(text, ON) == Request(wish, list_type, language)


@pytest.mark.parametrize(
    "text", ["", "   ", "please stop", "STOP it", "STOPPED", "STOP.", "STOP MARKETING now", "MARKETING", "START ALL"]
)
def test_every_other_text_asks_for_nothing(text):
    assert read_request(text, ON) is None


def test_the_apps_own_words_win_over_the_built_in_ones():
    own = ConsentSettings(
        ConsentMode.PRIMARY,
        (Keyword("Abmelden", Wish.OPT_OUT, "de"), Keyword("end", Wish.HELP), Keyword("no more", Wish.OPT_OUT)),
    )

    assert read_request("ABMELDEN", own) == Request(Wish.OPT_OUT, ALL, "de")
    assert read_request("abmelden marketing", own) == Request(Wish.OPT_OUT, MARKETING, "de")
    assert read_request("END", own) == Request(Wish.HELP, ALL, "en")
    assert read_request("No  more", own) == Request(Wish.OPT_OUT, ALL, "en")
    assert read_request("STOP", own) == Request(Wish.OPT_OUT, ALL, "en")


@pytest.mark.parametrize(
    ("content_type", "lists", "blocked"),
    [
        (UNKNOWN_CONTENT, (), False),
        (UNKNOWN_CONTENT, (ALL,), True),
        (UNKNOWN_CONTENT, (MARKETING,), False),
        (UNKNOWN_CONTENT, (NOTIFICATION,), False),
        (MARKETING_CONTENT, (), False),
        (MARKETING_CONTENT, (ALL,), True),
        (MARKETING_CONTENT, (MARKETING,), True),
        (MARKETING_CONTENT, (NOTIFICATION,), False),
        (NOTIFICATION_CONTENT, (ALL,), True),
        (NOTIFICATION_CONTENT, (MARKETING,), False),
        (NOTIFICATION_CONTENT, (NOTIFICATION,), True),
        (NOTIFICATION_CONTENT, (MARKETING, NOTIFICATION), True),
    ],
)
def test_a_list_blocks_the_kinds_of_messages_it_is_about(content_type, lists, blocked):
    assert is_blocked(content_type, lists) is blocked


def test_every_keyword_has_a_confirmation_in_its_language():
    assert {(keyword.wish, keyword.language) for keyword in KEYWORDS} == set(TEXTS)


def test_an_apps_own_confirmation_wins_and_an_empty_one_is_silence():
    own = ConsentSettings(ConsentMode.PRIMARY, texts={"OPT_OUT:en": "Gone.", "HELP:en": ""})

    assert confirmation(Request(Wish.OPT_OUT, ALL, "en"), own) == "Gone."
    assert confirmation(Request(Wish.HELP, ALL, "en"), own) == ""
    assert confirmation(Request(Wish.OPT_IN, ALL, "en"), own) == TEXTS[Wish.OPT_IN, "en"]
    assert confirmation(Request(Wish.OPT_IN, ALL, "de"), own) == TEXTS[Wish.OPT_IN, "en"]


@pytest.mark.parametrize(
    ("mode", "is_on", "blocks"),
    [(ConsentMode.OFF, False, False), (ConsentMode.PRIMARY, True, True), (ConsentMode.SECONDARY, True, False)],
)
def test_only_the_primary_mode_blocks(mode, is_on, blocks):
    settings = ConsentSettings(mode)

    assert (settings.is_on, settings.blocks) == (is_on, blocks)


def test_an_app_has_no_consent_management_unless_it_is_switched_on():
    assert not ConsentSettings().is_on
