"""Alphabets and parts: the vectors of channel-providers 1.1 and what must hold for any text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard_channels.sms import graphemes
from switchboard_channels.sms.encoding import (
    ESCAPE,
    PART_SEPTETS,
    PART_UNITS,
    Alphabet,
    DefaultAlphabet,
    Segmentation,
    decode,
    default_octets,
    from_gsm7,
    from_ucs2,
    plain_punctuation,
    segment,
    to_gsm7,
    to_ucs2,
)

ALPHABET = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "^{}\\[~]|€\f"


@pytest.mark.parametrize(
    ("text", "alphabet", "parts", "units"),
    [
        ("", Alphabet.GSM7, 1, 0),
        ("a" * 160, Alphabet.GSM7, 1, 160),
        ("a" * 161, Alphabet.GSM7, 2, 161),
        ("a" * 306, Alphabet.GSM7, 2, 306),
        ("a" * 307, Alphabet.GSM7, 3, 307),
        ("€" * 80, Alphabet.GSM7, 1, 160),
        ("€" * 81, Alphabet.GSM7, 2, 162),
        ("€" * 153, Alphabet.GSM7, 3, 306),
        ("a" * 159 + "€", Alphabet.GSM7, 2, 161),
        ("Ж" * 70, Alphabet.UCS2, 1, 70),
        ("Ж" * 71, Alphabet.UCS2, 2, 71),
        ("Ж" * 134, Alphabet.UCS2, 2, 134),
        ("Ж" * 135, Alphabet.UCS2, 3, 135),
        ("😀" * 35, Alphabet.UCS2, 1, 70),
        ("😀" * 36, Alphabet.UCS2, 2, 72),
        ("😀" * 67, Alphabet.UCS2, 3, 134),
        ("ç" * 10, Alphabet.UCS2, 1, 10),
    ],
)
def test_texts_take_the_parts_the_vectors_say(text: str, alphabet: Alphabet, parts: int, units: int) -> None:
    segmentation = segment(text)

    assert (segmentation.alphabet, len(segmentation.parts), segmentation.units) == (alphabet, parts, units)


@pytest.mark.parametrize(
    ("text", "reference_bits", "parts"),
    [("a" * 304, 16, 2), ("a" * 305, 16, 3), ("Ж" * 132, 16, 2), ("Ж" * 133, 16, 3)],
)
def test_a_16_bit_reference_leaves_less_room(text: str, reference_bits: int, parts: int) -> None:
    assert len(segment(text, reference_bits=reference_bits).parts) == parts


def test_the_whole_alphabet_goes_without_ucs2() -> None:
    assert len(ALPHABET) == 127
    assert from_gsm7(to_gsm7(ALPHABET + EXTENSION) or b"") == ALPHABET + EXTENSION
    assert to_gsm7("€^{}\\[~]|\f") == bytes.fromhex("1b65 1b14 1b28 1b29 1b2f 1b3c 1b3d 1b3e 1b40 1b0a")


@pytest.mark.parametrize("character", "`\tç“”‘’–—…\u00a0")
def test_look_alikes_are_not_in_the_alphabet(character: str) -> None:
    assert to_gsm7(character) is None


@pytest.mark.parametrize(
    ("septets", "text"),
    [(b"a\x1b", "a\ufffd"), (b"\x1bA", "A"), (b"\x1b\x1b", "\ufffd"), (b"\x80", "\ufffd"), (b"\x1b\xff", "\ufffd")],
)
def test_broken_septets_are_shown_not_refused(septets: bytes, text: str) -> None:
    assert from_gsm7(septets) == text


def test_plain_punctuation_keeps_a_text_in_gsm7() -> None:
    assert to_gsm7(plain_punctuation("“Hi” – it’s 5 o’clock…\u00a0`ok`")) == b"\"Hi\" - it's 5 o'clock... 'ok'"


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
gsm_text = st.text(st.sampled_from(ALPHABET + EXTENSION), max_size=500)
emoji_text = st.lists(
    st.sampled_from(["👩‍👩‍👧‍👦", "🇸🇪", "🇩🇰", "👍🏽", "é", "e\u0301", "a", "ก็", "각", "\r\n", "❤️", "Ж"]), max_size=150
).map("".join)


def text_of(segmentation: Segmentation) -> str:
    octets = b"".join(segmentation.parts)
    return from_gsm7(octets) if segmentation.alphabet is Alphabet.GSM7 else from_ucs2(octets)


@given(st.one_of(any_text, gsm_text, emoji_text), st.sampled_from([8, 16]))
def test_the_parts_together_are_the_text_and_each_fits(text: str, bits: int) -> None:
    segmentation = segment(text, reference_bits=bits)

    assert text_of(segmentation) == text
    if len(segmentation.parts) > 1:
        size = PART_SEPTETS[bits] if segmentation.alphabet is Alphabet.GSM7 else 2 * PART_UNITS[bits]
        assert all(0 < len(part) <= size for part in segmentation.parts)


@given(gsm_text)
def test_no_part_ends_within_an_escape_pair(text: str) -> None:
    for part in segment(text).parts:
        assert not part.endswith(bytes((ESCAPE,)))


@given(st.one_of(any_text, emoji_text))
def test_every_part_of_ucs2_can_be_read_alone(text: str) -> None:
    segmentation = segment(text)
    if segmentation.alphabet is Alphabet.UCS2:
        assert "".join(part.decode("utf-16-be") for part in segmentation.parts) == text


@given(st.one_of(emoji_text, gsm_text, any_text))
def test_parts_end_between_graphemes(text: str) -> None:
    segmentation = segment(text)
    size = 67 if segmentation.alphabet is Alphabet.UCS2 else 153
    read = from_gsm7 if segmentation.alphabet is Alphabet.GSM7 else from_ucs2
    position = 0
    for part in segmentation.parts[:-1]:
        start, position = position, position + len(read(part))
        # Only a cluster that fills a part by itself may be cut.
        if not graphemes.is_boundary(text, position):
            assert graphemes.last_boundary(text, start, position) == start
            assert len(part) >= size - 1


def test_a_cluster_longer_than_a_part_is_cut_all_the_same() -> None:
    text = "e" + "\u0301" * 200
    segmentation = segment(text)

    assert [len(part) // 2 for part in segmentation.parts] == [67, 67, 67]
    assert text_of(segmentation) == text


CLUSTERS = [
    "👩‍👩‍👧‍👦",
    "🇸🇪",
    "👍🏽",
    "e\u0301",
    "각",
    "\u1100\u1161\u11a8",
    "\r\n",
    "❤️",
    "🏴\U000e0067\U000e0062\U000e007f",
    "a",
]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=[unicodedata.name(c[0], "control") for c in CLUSTERS])
def test_what_people_see_as_one_character_is_one_cluster(cluster: str) -> None:
    text = "x" + cluster + "x"
    borders = [index for index in range(1, len(text)) if graphemes.is_boundary(text, index)]

    assert borders == [1, 1 + len(cluster)]


def test_flags_are_cut_between_pairs() -> None:
    text = "🇸🇪🇩🇰🇳🇴"

    assert [index for index in range(7) if graphemes.is_boundary(text, index)] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("text", "default", "alphabet"),
    [
        ("plain [x]", DefaultAlphabet.ASCII, Alphabet.GSM7),
        ("für", DefaultAlphabet.ASCII, Alphabet.UCS2),
        ("für", DefaultAlphabet.LATIN1, Alphabet.GSM7),
        ("5 €", DefaultAlphabet.LATIN1, Alphabet.UCS2),
        ("ç", DefaultAlphabet.LATIN1, Alphabet.UCS2),
    ],
)
def test_an_smsc_with_another_default_alphabet_gets_only_what_both_hold(
    text: str, default: DefaultAlphabet, alphabet: Alphabet
) -> None:
    segmentation = segment(text, default_alphabet=default)

    assert segmentation.alphabet is alphabet
    if alphabet is Alphabet.GSM7:
        assert default_octets(segmentation.parts[0], default) == text.encode("latin-1")


@pytest.mark.parametrize(
    ("data_coding", "octets", "text"),
    [
        (0x00, b"\x00\x1b\x65", "@€"),
        (0x01, b"caf\xe9", "café"),
        (0x03, b"caf\xe9", "café"),
        (0x06, "Жук".encode("iso8859-5"), "Жук"),
        (0x08, to_ucs2("Жук 😀"), "Жук 😀"),
        (0x08, b"\xd8", "\ufffd"),
        (0x10, b"\x00", "@"),
        (0x18, to_ucs2("Ж"), "Ж"),
        (0xF0, b"\x00", "@"),
        (0x02, b"\x00", None),
        (0x04, b"\x00", None),
        (0x14, b"\x00", None),
        (0xF5, b"\x00", None),
        (0xC8, b"\x00", "@"),
    ],
)
def test_inbound_text_is_read_by_its_data_coding(data_coding: int, octets: bytes, text: str | None) -> None:
    assert decode(data_coding, octets) == text


@given(st.integers(0, 255), st.binary(max_size=300))
def test_reading_text_never_raises(data_coding: int, octets: bytes) -> None:
    decode(data_coding, octets)
