"""Reads the records of a batch, and leaves those that cannot be read to the bus."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from switchboard.bus import BadRecords, Permanent, Record, Transient, UnknownRecordType, WaitCause
from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard.topics import BrokenRecord, RecordT, Topic, UnknownRecord


@contextmanager
def decode_all(topic: Topic[RecordT], records: Sequence[Record]) -> Iterator[list[RecordT]]:
    """The records that can be read. After the others' work is done, raises BadRecords for those that cannot.

    Inside, what the database does when it is away or busy becomes Transient, as the bus wants it.
    """
    decoded: list[RecordT] = []
    failures: dict[int, Exception] = {}
    for index, record in enumerate(records):
        try:
            decoded.append(topic.decode(record.value, record.headers))
        except UnknownRecord as error:
            failures[index] = UnknownRecordType(str(error))
        except BrokenRecord as error:
            failures[index] = Permanent(str(error))
    try:
        yield decoded
    except asyncpg.UniqueViolationError as error:
        # Another router, which lost this partition a moment ago, has just written the same rows.
        raise Transient("planned at the same time elsewhere", cause=WaitCause.CONFLICT) from error
    except TRANSIENT_ERRORS as error:
        raise Transient(type(error).__name__, cause=WaitCause.DATABASE) from error
    if failures:
        raise BadRecords(failures)
