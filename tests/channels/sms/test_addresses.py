"""TON, NPI and spelling of addresses (channel-providers 1.2.2)."""

import pytest

from switchboard_channels.sms.addresses import (
    Address,
    AddressRules,
    InvalidSender,
    destination,
    identity,
    source,
)

RULES = AddressRules()


@pytest.mark.parametrize(
    ("sender", "address"),
    [
        ("+46701230001", Address(1, 1, "46701230001")),
        ("46701230001", Address(1, 1, "46701230001")),
        ("12345", Address(0, 1, "12345")),
        ("Acme", Address(5, 0, "Acme")),
        ("Acme Corp 2", Address(5, 0, "Acme Corp 2")),
    ],
)
def test_senders_get_the_type_of_their_kind(sender: str, address: Address) -> None:
    assert source(sender, RULES) == address


@pytest.mark.parametrize("sender", ["TwelveLetter", "Ünder", "€uro", "", "[[[[[[", "tab\there"])
def test_impossible_senders_are_refused_before_sending(sender: str) -> None:
    with pytest.raises(InvalidSender):
        source(sender, RULES)


def test_an_account_may_want_short_codes_otherwise() -> None:
    assert source("12345", AddressRules(short_code=(6, 0))) == Address(6, 0, "12345")


def test_recipients_lose_their_plus() -> None:
    assert destination("+46701230001", RULES) == Address(1, 1, "46701230001")


@pytest.mark.parametrize(
    ("ton", "address", "who"),
    [(1, "+46701230001", "46701230001"), (0, "46701230001", "46701230001"), (5, "Acme", ""), (2, "0701230001", "")],
)
def test_only_international_numbers_are_identities(ton: int, address: str, who: str) -> None:
    assert identity(ton, address) == who
