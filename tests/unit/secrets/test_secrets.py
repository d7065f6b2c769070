"""Secrets at rest and access secrets."""

import base64

import pytest

from switchboard.secrets import KeyRing, UnknownKey, Unreadable, hash_access_secret, is_access_secret

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def test_what_is_sealed_for_a_row_opens_for_that_row() -> None:
    ring = KeyRing({"a": OLD})

    assert ring.open(ring.seal(b"token", "apps:1"), "apps:1") == b"token"


def test_what_is_sealed_does_not_show_what_it_holds_and_is_never_the_same_twice() -> None:
    ring = KeyRing({"a": OLD})
    first, second = ring.seal(b"token", "apps:1"), ring.seal(b"token", "apps:1")

    assert b"token" not in first
    assert first != second


def test_a_secret_copied_to_another_row_does_not_open_there() -> None:
    ring = KeyRing({"a": OLD})

    with pytest.raises(Unreadable, match="apps:2"):
        ring.open(ring.seal(b"token", "apps:1"), "apps:2")


def test_after_a_change_of_keys_old_secrets_open_and_new_ones_use_the_new_key() -> None:
    sealed = KeyRing({"a": OLD}).seal(b"token", "apps:1")
    changed = KeyRing({"b": NEW, "a": OLD})

    assert changed.open(sealed, "apps:1") == b"token"
    assert KeyRing({"b": NEW}).open(changed.seal(b"token", "apps:1"), "apps:1") == b"token"


def test_a_key_that_was_taken_away_is_named() -> None:
    with pytest.raises(UnknownKey, match="'a'"):
        KeyRing({"b": NEW}).open(KeyRing({"a": OLD}).seal(b"token", "apps:1"), "apps:1")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01\x05ab", b"\x02\x01a" + bytes(40), b"plain text"])
def test_bytes_that_were_never_sealed_are_refused(sealed: bytes) -> None:
    with pytest.raises(Unreadable):
        KeyRing({"a": OLD}).open(sealed, "apps:1")


@pytest.mark.parametrize("place", [0, 2, 10, 20, -1])
def test_a_changed_byte_anywhere_is_noticed(place: int) -> None:
    ring = KeyRing({"a": OLD})
    sealed = bytearray(ring.seal(b"token", "apps:1"))
    sealed[place] ^= 1

    with pytest.raises((Unreadable, UnknownKey)):
        ring.open(bytes(sealed), "apps:1")


def test_a_ring_is_read_newest_first() -> None:
    ring = KeyRing.parse(f"b:{base64.b64encode(NEW).decode()}, a:{base64.b64encode(OLD).decode()}")

    assert KeyRing({"b": NEW}).open(ring.seal(b"x", "r"), "r") == b"x"
    assert repr(ring) == "KeyRing(b, a)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one key"),
        ("nothing", "`id:base64"),
        ("a:???", "key 'a': not base64"),
        (f"a:{base64.b64encode(b'short').decode()}", "key 'a': 32 bytes"),
        (f"a:{base64.b64encode(OLD).decode()},a:{base64.b64encode(NEW).decode()}", "given twice"),
        (f":{base64.b64encode(OLD).decode()}", "1 to 255 bytes"),
    ],
)
def test_a_wrong_ring_is_refused_without_showing_a_key(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        KeyRing.parse(text)

    assert base64.b64encode(OLD).decode() not in str(refused.value)


def test_a_generated_ring_can_be_read() -> None:
    assert repr(KeyRing.parse(KeyRing.generate())) == "KeyRing(k1)"


def test_derived_keys_differ_by_purpose_and_key() -> None:
    ring = KeyRing({"b": NEW, "a": OLD})

    assert ring.derive("tokens") == ring.derive_all("tokens")["b"]
    assert len({ring.derive("tokens"), ring.derive("records"), *ring.derive_all("tokens").values()}) == 3


def test_an_access_secret_is_known_by_its_hash_and_only_for_its_key() -> None:
    kept = hash_access_secret("key", "a-long-random-secret")

    assert is_access_secret("key", "a-long-random-secret", kept)
    assert not is_access_secret("key", "another-secret", kept)
    assert not is_access_secret("other", "a-long-random-secret", kept)
