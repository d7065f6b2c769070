"""The bus: what every service promises about Kafka, written once (DESIGN 4). Raw bytes in, raw bytes out.

Reading. A `Consumer` hands a handler the oldest unfinished record of each key, never two of one key at once, and
commits an offset when everything before it is finished. *Finished means that what remains is durable elsewhere.*
There are two shapes of handler over one policy:

- a `BatchHandler` gets records with distinct keys and returns when all are finished: `handle=on_attempts`;
- a `SlotHandler` settles each record by itself, later if it likes: `handle=InSlots(on_dispatch, slots=256)`. It calls
  `slots.finish(record)`, or `slots.finish(record, hold_key=True)` and, after the slow call, `slots.release(record)`:
  the offset has passed, but the key's next record waits. `slots.fail(record, error)` leaves the rest to the policy.

A handler tells the policy what went wrong by raising (`errors`): `Transient` is retried without limit while other keys
go on, `Permanent` is a dead letter at once, `UnknownRecordType` waits for newer code, `BadRecords` names the bad ones
of a batch, and anything else is counted: the batch is halved until the bad record is alone, and its fifth failure
makes it a dead letter. A dead letter goes to its topic, then `on_dead_letter` ends its message, then the offset passes.

Writing. `Producer.publish` returns when every message is acknowledged, or raises `PublishFailed` with those that are
not. It has a deadline, always.

Watching. `Watchdog` ends a process whose consumers stall; `LoopLag` measures the event loop; `BusMetrics` counts.
"""

from switchboard.bus.consumer import Consumer, ConsumerState
from switchboard.bus.deadletter import DeadLetter, decode_dead_letter
from switchboard.bus.errors import (
    BadRecords,
    BusError,
    NotStarted,
    Permanent,
    PublishFailed,
    TooLarge,
    Transient,
    UnknownRecordType,
    WaitCause,
)
from switchboard.bus.handler import BatchHandler, InSlots, SlotHandler, Slots
from switchboard.bus.looplag import LoopLag
from switchboard.bus.metrics import BusMetrics
from switchboard.bus.policy import DeadLetterCause, DeadLetterReason, KnownErrors, RetryLimits
from switchboard.bus.producer import Producer
from switchboard.bus.record import Outgoing, Record, TopicPartition
from switchboard.bus.runner import OnDeadLetter
from switchboard.bus.settings import BusSettings
from switchboard.bus.topics import TopicSpec, dead_letter_topic, ensure_topics
from switchboard.bus.watchdog import Watchdog

__all__ = [
    "BadRecords",
    "BatchHandler",
    "BusError",
    "BusMetrics",
    "BusSettings",
    "Consumer",
    "ConsumerState",
    "DeadLetter",
    "DeadLetterCause",
    "DeadLetterReason",
    "InSlots",
    "KnownErrors",
    "LoopLag",
    "NotStarted",
    "OnDeadLetter",
    "Outgoing",
    "Permanent",
    "Producer",
    "PublishFailed",
    "Record",
    "RetryLimits",
    "SlotHandler",
    "Slots",
    "TooLarge",
    "TopicPartition",
    "TopicSpec",
    "Transient",
    "UnknownRecordType",
    "WaitCause",
    "Watchdog",
    "dead_letter_topic",
    "decode_dead_letter",
    "ensure_topics",
]
