"""Parts of long messages, out and in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard_channels.sms.concat import (
    UDHI,
    Concatenation,
    LongMessages,
    References,
    UserData,
    WirePart,
    user_data,
    wire_parts,
    with_part,
)
from switchboard_channels.sms.pdu import Tag, Tlvs

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def test_a_text_of_one_part_goes_without_a_header() -> None:
    for way in LongMessages:
        assert wire_parts([b"Hi"], way, 7) == (WirePart(b"Hi"),)


def test_an_8_bit_header_numbers_the_parts() -> None:
    assert wire_parts([b"one", b"two"], LongMessages.UDH, 0x1234) == (
        WirePart(b"\x05\x00\x03\x34\x02\x01one", UDHI),
        WirePart(b"\x05\x00\x03\x34\x02\x02two", UDHI),
    )


def test_a_16_bit_header_numbers_the_parts() -> None:
    parts = wire_parts([b"one", b"two"], LongMessages.UDH, 0x1234, reference_bits=16)

    assert parts[1] == WirePart(b"\x06\x08\x04\x12\x34\x02\x02two", UDHI)


def test_sar_parts_have_no_header_in_the_text() -> None:
    parts = wire_parts([b"one", b"two"], LongMessages.SAR, 0x1234)

    assert parts[1] == WirePart(
        b"two",
        0,
        {
            Tag.SAR_MSG_REF_NUM: b"\x12\x34",
            Tag.SAR_TOTAL_SEGMENTS: b"\x02",
            Tag.SAR_SEGMENT_SEQNUM: b"\x02",
        },
    )


def test_a_payload_holds_all_parts_at_once() -> None:
    parts = [b"x" * 153, b"y" * 10]

    assert wire_parts(parts, LongMessages.PAYLOAD, 7) == (
        WirePart(b"", 0, {Tag.MESSAGE_PAYLOAD: b"x" * 153 + b"y" * 10}),
    )


def test_no_header_can_number_256_parts() -> None:
    with pytest.raises(ValueError, match="256 parts"):
        wire_parts([b"x"] * 256, LongMessages.UDH, 7)


@given(
    st.lists(st.binary(min_size=1, max_size=134), min_size=2, max_size=255),
    st.integers(0, 0xFFFF),
    st.sampled_from([(LongMessages.UDH, 8), (LongMessages.UDH, 16), (LongMessages.SAR, 8)]),
    st.randoms(),
)
def test_parts_sent_are_put_together_in_any_order(
    parts: list[bytes], reference: int, way: tuple[LongMessages, int], random: object
) -> None:
    sent = list(wire_parts(parts, way[0], reference, reference_bits=way[1]))
    random.shuffle(sent)  # type: ignore[attr-defined]
    assembly = None
    for piece in sent:
        read = user_data(piece.esm_class, piece.short_message, piece.tlvs)
        assert read.part is not None
        assert assembly is None or not assembly.is_whole
        assembly = with_part(assembly, read.part, read.octets, NOW)

    assert assembly is not None
    assert assembly.is_whole
    assert assembly.octets == b"".join(parts)


@pytest.mark.parametrize(
    ("esm_class", "octets", "tlvs", "read"),
    [
        (0, b"plain", {}, UserData(b"plain")),
        (UDHI, b"\x05\x00\x03\x07\x02\x01Hi", {}, UserData(b"Hi", Concatenation(7, 2, 1))),
        (UDHI, b"\x06\x08\x04\x01\x02\x02\x02Hi", {}, UserData(b"Hi", Concatenation(0x102, 2, 2))),
        # Ports before the part number, as some senders write.
        (
            UDHI,
            b"\x0b\x05\x04\x0b\x84\x23\xf0\x00\x03\x07\x03\x02Hi",
            {},
            UserData(b"Hi", Concatenation(7, 3, 2)),
        ),
        (UDHI, b"\x05\x00\x03\x07\x01\x01Hi", {}, UserData(b"Hi")),
        (UDHI, b"\x05\x00\x03\x07\x02\x03Hi", {}, UserData(b"Hi")),
        (UDHI, b"\x05\x00\x03\x07\x00\x00Hi", {}, UserData(b"Hi")),
        (UDHI, b"\x03\x24\x01\x01Hi", {}, UserData(b"Hi")),
        (UDHI, b"\xff\x00", {}, UserData(b"")),
        (UDHI, b"", {}, UserData(b"")),
        (
            0,
            b"Hi",
            {Tag.SAR_MSG_REF_NUM: b"\0\x07", Tag.SAR_TOTAL_SEGMENTS: b"\x02", Tag.SAR_SEGMENT_SEQNUM: b"\x01"},
            UserData(b"Hi", Concatenation(7, 2, 1)),
        ),
        (0, b"Hi", {Tag.SAR_MSG_REF_NUM: b"\0\x07"}, UserData(b"Hi")),
    ],
)
def test_headers_are_read_and_taken_off(esm_class: int, octets: bytes, tlvs: Tlvs, read: UserData) -> None:
    assert user_data(esm_class, octets, tlvs) == read


@given(st.integers(0, 255), st.binary(max_size=200))
def test_no_header_makes_reading_raise(esm_class: int, octets: bytes) -> None:
    user_data(esm_class, octets, {})


def test_a_part_that_comes_twice_changes_nothing() -> None:
    part = Concatenation(7, 2, 1)
    once = with_part(None, part, b"one", NOW)

    assert with_part(once, part, b"other", NOW) == once
    assert not once.is_whole


def test_parts_are_waited_for_only_so_long() -> None:
    assembly = with_part(None, Concatenation(7, 2, 2), b"two", NOW)

    assert not assembly.is_overdue(NOW + timedelta(minutes=4), timedelta(minutes=5))
    assert assembly.is_overdue(NOW + timedelta(minutes=5), timedelta(minutes=5))
    assert assembly.octets == b"two"


def test_a_pair_meets_its_reference_again_only_after_all_others() -> None:
    references = References(1)
    seen = [references.next_for("Acme", "46701230001") & 0xFF for _ in range(256)]

    assert len(set(seen)) == 256


def test_pairs_do_not_count_together() -> None:
    references = References(1)
    first = references.next_for("Acme", "46701230001")
    for number in range(5):
        references.next_for("Acme", f"4670123999{number}")

    assert references.next_for("Acme", "46701230001") == (first + 1) & 0xFFFF
