"""What is kept of a record no handler could process."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from switchboard.bus.policy import DeadLetterCause, DeadLetterReason
from switchboard.bus.record import Outgoing, Record


class DeadLetter(Struct, frozen=True, kw_only=True, rename="camel"):
    """A record, where it was, and why it could not be processed. Bytes are base64 in JSON."""

    topic: str
    partition: int
    offset: int
    #: The consumer group that gave up on it.
    group: str
    reason: DeadLetterReason
    #: The exception's type and text. The text may quote the payload.
    error: str
    detail: str
    #: How often it failed alone.
    failures: int
    #: When it was given up.
    buried_at: datetime
    #: When its producer made it, milliseconds since 1970.
    timestamp_ms: int
    key: bytes | None
    headers: Mapping[str, bytes]
    payload: bytes

    def original(self) -> Outgoing:
        """The record as it was published, to replay it once what broke it is mended."""
        return Outgoing(self.topic, self.key, self.payload, self.headers)


def encode_dead_letter(topic: str, record: Record, group: str, cause: DeadLetterCause) -> Outgoing:
    """The message that keeps a record in the dead-letter topic, under the record's own key."""
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        group=group,
        reason=cause.reason,
        error=cause.error,
        detail=cause.detail,
        failures=cause.failures,
        buried_at=datetime.now(UTC),
        timestamp_ms=record.timestamp_ms,
        key=record.key,
        headers=dict(record.headers),
        payload=record.value,
    )
    headers = {"type": b"DeadLetter"}
    if (message_id := record.headers.get("message_id")) is not None:
        headers["message_id"] = message_id
    return Outgoing(topic, record.key, msgspec.json.encode(letter), headers)


def decode_dead_letter(value: bytes) -> DeadLetter:
    """Read a dead letter. Raises msgspec.ValidationError if it is none."""
    return msgspec.json.decode(value, type=DeadLetter)
