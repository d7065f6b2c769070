"""Identities and the keys made of them."""

import pytest

from switchboard.identity import keyed_hash, normal_msisdn


@pytest.mark.parametrize("text", ["46701230001", "+46701230001", " 46701230001"])
def test_a_number_is_spelled_in_digits(text: str):
    assert normal_msisdn(text) == "46701230001"


@pytest.mark.parametrize("text", ["", "+", "0046 70", "46-70", "anna", "4" * 21, "46701230001\n+1"])
def test_what_is_no_number_is_refused(text: str):
    with pytest.raises(ValueError, match="phone number"):
        normal_msisdn(text)


def test_a_record_key_tells_nobody_who_it_is_and_meets_itself():
    key = keyed_hash(b"k" * 32, "SMS", "46701230001")

    assert key == keyed_hash(b"k" * 32, "SMS", "46701230001")
    assert key != keyed_hash(b"x" * 32, "SMS", "46701230001")
    assert key != keyed_hash(b"k" * 32, "SMS4", "6701230001")
    assert b"46701230001" not in key
