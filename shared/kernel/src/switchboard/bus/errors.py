"""What a handler may raise, named for what the bus then does.

BusError
├── Transient              the world is in the way (database, broker, time-out, conflict): again, without limit
│   └── PublishFailed      some messages were not acknowledged in time; they may or may not be in Kafka
├── Permanent              no number of tries helps: dead letter now
│   └── TooLarge           a message no topic would take
├── UnknownRecordType      newer code knows this record: it waits, dead letter after `unknown_type_seconds`
├── BadRecords             these records of the batch failed, each with its own error; the others are finished
└── NotStarted             the producer or consumer is not running

Any other exception counts against the record: five of them and it is a dead letter.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum


class WaitCause(StrEnum):
    """Why a record waits although nobody is working on it. The watchdog leaves a consumer alone that has an excuse."""

    DATABASE = "database"
    BROKER = "broker"
    UNKNOWN_TYPE = "unknown_type"
    BACK_OFF = "back_off"
    #: Somebody else was faster. Tries that never win are a fault of ours.
    CONFLICT = "conflict"

    @property
    def is_excuse(self) -> bool:
        """Whether it is no fault of the process's own."""
        return self is not WaitCause.CONFLICT


class BusError(Exception):
    """Base of everything the bus raises or understands."""


class Transient(BusError):
    """The world is in the way. The records are retried in place with back-off, however often it takes."""

    cause: WaitCause = WaitCause.BACK_OFF

    def __init__(self, message: str = "", *, cause: WaitCause | None = None) -> None:
        super().__init__(message)
        if cause is not None:
            self.cause = cause


class PublishFailed(Transient):
    """Messages that were not acknowledged before the deadline: nobody can say whether Kafka has them."""

    cause = WaitCause.BROKER

    def __init__(self, indexes: Sequence[int], why: str) -> None:
        """`indexes` are positions in what was given to `publish`; all others are acknowledged."""
        super().__init__(f"{len(indexes)} messages not acknowledged: {why}")
        self.indexes = tuple(indexes)


class Permanent(BusError):
    """No number of tries helps. The record becomes a dead letter at once."""


class TooLarge(Permanent):
    """A message larger than the producer's limit. Nothing of its batch was sent."""

    def __init__(self, index: int, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"message {index} has {size_bytes} bytes, at most {limit_bytes} are allowed")
        self.index = index


class UnknownRecordType(BusError):
    """A record of a type this version does not know, as happens in a rolling upgrade."""


class BadRecords(BusError):
    """Some records of a batch failed. The others are finished."""

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        """`failures` maps positions in the batch to what went wrong there; each is judged by itself."""
        super().__init__(f"{len(failures)} records of the batch failed")
        self.failures = failures


class NotStarted(BusError):
    """Used before `start()` or after `stop()`."""
