"""What is kept of a dead letter, and what of it may be seen outside its body."""

from switchboard.bus import DeadLetterCause, DeadLetterReason, Record, decode_dead_letter
from switchboard.bus.deadletter import encode_dead_letter

RECORD = Record("t", 3, 14, b"\x00key", b"\xff payload", {"type": b"Fact", "message_id": b"01A", "x": b"y"}, 1_700)
CAUSE = DeadLetterCause(DeadLetterReason.PERMANENT, "ValueError", "quotes +4670 and the text", 2)


def test_a_dead_letter_holds_the_whole_record_and_why_it_died() -> None:
    letter = decode_dead_letter(encode_dead_letter("dead", RECORD, "router.attempts", CAUSE).value)

    assert (letter.topic, letter.partition, letter.offset, letter.group) == ("t", 3, 14, "router.attempts")
    assert (letter.key, letter.payload, letter.timestamp_ms) == (b"\x00key", b"\xff payload", 1_700)
    assert (letter.reason, letter.error, letter.failures) == (DeadLetterReason.PERMANENT, "ValueError", 2)
    assert letter.buried_at.tzinfo is not None


def test_the_errors_text_is_in_the_body_only() -> None:
    message = encode_dead_letter("dead", RECORD, "g", CAUSE)

    assert message.topic == "dead"
    assert message.key == RECORD.key
    assert message.headers == {"type": b"DeadLetter", "message_id": b"01A"}


def test_a_dead_letter_can_be_published_again_as_it_was() -> None:
    original = decode_dead_letter(encode_dead_letter("dead", RECORD, "g", CAUSE).value).original()

    assert (original.topic, original.key, original.value) == ("t", RECORD.key, RECORD.value)
    assert dict(original.headers) == dict(RECORD.headers)
