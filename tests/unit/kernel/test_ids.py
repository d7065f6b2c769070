"""Ids: minted ones carry their time, derived ones their causes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.ids import (
    MessageId,
    attempt_id,
    derive,
    derive_at,
    is_ulid,
    lowest_at,
    milliseconds_of,
    mint,
    parse_attempt_id,
    random_token,
    time_of,
    trace_id_of,
)

NOON = datetime(2026, 11, 21, 12, 0, 0, 123_000, tzinfo=UTC)


def test_a_minted_id_is_a_ulid_of_now():
    before = datetime.now(UTC)

    made = mint()

    assert is_ulid(made)
    assert abs((time_of(made) - before).total_seconds()) < 5


@pytest.mark.parametrize("text", ["", "123", "01K07KW4XC9S346Q3D25VT4F5", "81K07KW4XC9S346Q3D25VT4F5V", "01k07kw4xc9s346q3d25vt4f5v", "01K07KW4XC9S346Q3D25VT4F5U"])  # fmt: skip  # noqa: E501
def test_what_is_no_ulid(text: str):
    assert not is_ulid(text)


def test_the_bound_of_a_day_is_the_least_id_of_its_first_moment():
    bound = lowest_at(NOON)

    assert time_of(bound) == NOON
    assert bound <= derive_at(NOON, "anything")
    assert milliseconds_of(bound) == int(NOON.timestamp() * 1000)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_equal_causes_give_equal_ids_in_the_same_millisecond(causes):
    near = lowest_at(NOON)

    made = derive(near, *causes)

    assert made == derive(near, *causes)
    assert is_ulid(made)
    assert time_of(made) == NOON


def test_causes_are_not_run_together():
    near = lowest_at(NOON)

    assert derive(near, "a", "bc") != derive(near, "ab", "c")


def test_an_attempt_s_name_can_be_taken_apart():
    message = MessageId(mint())

    assert parse_attempt_id(attempt_id(message, 2, 17)) == (message, 2, 17)
    with pytest.raises(ValueError, match="unpack"):
        parse_attempt_id("not an attempt")


def test_a_trace_id_is_the_16_bytes_of_the_message_id():
    assert trace_id_of("01K098EK8NWJ47TAN9ZT24MNPZ").bit_length() <= 128
    assert trace_id_of("00000000000000000000000001") == 1


def test_tokens_do_not_repeat():
    assert len({random_token() for _ in range(100)}) == 100
