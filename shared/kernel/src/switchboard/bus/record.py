"""What goes through the bus: bytes with a key, headers and a place."""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field


class TopicPartition(NamedTuple):
    """A partition of a topic: what a consumer is assigned and where offsets count."""

    topic: str
    partition: int


class Record(Struct, frozen=True, gc=False):
    """A record as it was read. The bus never looks into `value`."""

    topic: str
    partition: int
    offset: int
    #: What the record is kept in order with. Records without one are in no order.
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]
    #: When the producer made it, milliseconds since 1970.
    timestamp_ms: int


class Outgoing(Struct, frozen=True, gc=False):
    """A message to publish. `topic` is its full name; nothing personal belongs in `key` or `headers`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
