"""The catalogue of topics: what each carries, what its key keeps in order, who writes and who reads it (DESIGN 4).

This is the one place where a topic is defined. Services encode and decode records here, asyncapi.json is generated
from here, and a test checks that every topic has a producer and a consumer.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from switchboard.identity import ChannelName
from switchboard.records import (
    AcceptedRecord,
    AttemptsRecord,
    ChangesRecord,
    DeliverCallback,
    DispatchRecord,
    EventsRecord,
    InboundRecord,
    RecordBase,
)

RecordT = TypeVar("RecordT", bound=RecordBase)


class UnknownRecord(Exception):
    """A record of a type this code does not know: newer code will. It waits."""

    def __init__(self, topic: str, record_type: str) -> None:
        super().__init__(f"{topic}: unknown record type {record_type!r}")


class BrokenRecord(Exception):
    """A record that is not what its type says. It will not get better."""

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(f"{topic}: {why}")


class Topic(Generic[RecordT]):
    """One topic: its name, its records, its key, and who is at its two ends."""

    def __init__(
        self,
        subject: str,
        records: Any,
        *,
        key: str,
        producers: tuple[str, ...],
        groups: tuple[str, ...],
        header_fields: tuple[str, ...] = (),
        max_record_bytes: int = 1_000_000,
    ) -> None:
        """`records` is a record type or a union of them; `key` says in words what the record key is made of.

        `header_fields` are ids that a consumer must know even of a record it cannot read, so that its message ends.
        """
        self.subject = subject
        self._header_fields = header_fields
        self.key = key
        self.producers = producers
        self.groups = groups
        self.max_record_bytes = max_record_bytes
        self.record_types: tuple[type[RecordBase], ...] = get_args(records) or (records,)
        self._decoders: Mapping[bytes, msgspec.json.Decoder[Any]] = {
            kind.__name__.encode(): msgspec.json.Decoder(kind) for kind in self.record_types
        }
        self._types = {kind: kind.__name__.encode() for kind in self.record_types}

    def name(self, prefix: str = "switchboard.", channel: ChannelName | None = None) -> str:
        """The topic's name on the broker. `prefix` sets installations (and tests) apart."""
        subject = self.subject if channel is None else self.subject.format(channel=channel.lower())
        return f"{prefix}{subject}.v1"

    def encode(self, record: RecordT) -> bytes:
        """The record's value."""
        return _encoder.encode(record)

    def headers(self, record: RecordT) -> dict[str, bytes]:
        """The record's headers: its type and the ids of the topic's `header_fields`. Never anything personal."""
        headers = {"type": self._types[type(record)]}
        for name in self._header_fields:
            # Not every type of a topic is about a message.
            if (value := getattr(record, name, None)) is not None:
                headers[name] = value.encode()
        return headers

    def decode(self, value: bytes, headers: Mapping[str, bytes]) -> RecordT:
        """Read a record. Raises UnknownRecord for a type of the future, BrokenRecord for bytes that do not fit."""
        kind = headers.get("type", b"")
        decoder = self._decoders.get(kind)
        if decoder is None:
            if not kind:
                raise BrokenRecord(self.subject, "the record has no header `type`")
            raise UnknownRecord(self.subject, kind.decode(errors="replace"))
        try:
            record: RecordT = decoder.decode(value)
        except msgspec.DecodeError as error:
            raise BrokenRecord(self.subject, f"not a {kind.decode()}: {error}") from error
        return record


_encoder: Final = msgspec.json.Encoder()

MESSAGES_ACCEPTED: Final[Topic[AcceptedRecord]] = Topic(
    "messages.accepted",
    AcceptedRecord,
    key="keyed hash of project and first identity as addressed: keeps one person's sends in order",
    # The router answers keywords: a confirmation is a message like any other.
    producers=("ingress", "router"),
    groups=("router.accepted",),
    header_fields=("message_id", "event_id", "app_id", "project_id"),
)
DISPATCH: Final[Topic[DispatchRecord]] = Topic(
    "dispatch.{channel}",
    DispatchRecord,
    key="keyed hash of the identity on that channel: keeps one person's attempts on one channel in order",
    producers=("router",),
    groups=("channel-adapter.{channel}",),
    header_fields=("message_id",),
)
ATTEMPTS: Final[Topic[AttemptsRecord | EventsRecord]] = Topic(
    "attempts",
    AttemptsRecord | EventsRecord,
    key="message or event id: keeps everything that happens to one message in order",
    producers=("channel-adapter", "router"),
    groups=("router.attempts",),
    header_fields=("message_id",),
)
INBOUND: Final[Topic[InboundRecord]] = Topic(
    "inbound",
    InboundRecord,
    key="keyed hash of app, channel and identity: keeps what one person says to one app in order",
    # The router: opt-outs it learns from refusals, answers for channels that cannot tell their capability.
    producers=("channel-adapter", "router"),
    groups=("router.inbound",),
    header_fields=("message_id",),
)
CHANGES: Final[Topic[ChangesRecord]] = Topic(
    "changes",
    ChangesRecord,
    key="contact or conversation id: keeps the changes of one contact or conversation in order",
    producers=("ingress",),
    groups=("router.changes",),
)
CALLBACKS: Final[Topic[DeliverCallback]] = Topic(
    "callbacks",
    DeliverCallback,
    key="endpoint and message, contact or conversation: keeps one story's callbacks to one endpoint in order",
    producers=("router",),
    groups=("callback-delivery",),
    header_fields=("callback_id",),
)

TOPICS: Final[tuple[Topic[Any], ...]] = (MESSAGES_ACCEPTED, DISPATCH, ATTEMPTS, INBOUND, CHANGES, CALLBACKS)


def topic_names(prefix: str, channels: Iterable[ChannelName]) -> list[str]:
    """Every topic of an installation with these channels, one dispatch topic for each."""
    names = [topic.name(prefix) for topic in TOPICS if topic is not DISPATCH]
    return names + [DISPATCH.name(prefix, channel) for channel in channels]
