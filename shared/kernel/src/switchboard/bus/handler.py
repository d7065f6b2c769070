"""The two shapes of a handler, and how a slot handler settles records.

A *batch handler* gets records, returns when all are finished or raises. A *slot handler* gets records and settles
each when it is finished, at its own time, long after it returned if need be: a slow provider call then holds neither
the batch nor the partition. The policy behind both is the same; a batch handler is a slot handler that settles
everything when it returns.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from switchboard.bus.errors import BusError
from switchboard.bus.record import Record
from switchboard.bus.scheduler import Ticket


class BatchHandler(Protocol):
    """Works on records with distinct keys, each the oldest unfinished of its key.

    Returns when all of them are finished: what remains to be done is durable elsewhere. Raises what `errors` lists.
    May see a record again.
    """

    async def __call__(self, records: Sequence[Record], /) -> None:
        """Finish the records."""
        ...


class Slots:
    """How a slot handler says what became of the records it was given. Every record is settled exactly once."""

    __slots__ = ("_failed", "_finished", "_released", "_tickets")

    def __init__(
        self,
        tickets: Sequence[Ticket],
        finished: Callable[[Ticket, bool], None],
        failed: Callable[[Ticket, BaseException], None],
        released: Callable[[Ticket], None],
    ) -> None:
        self._tickets = {id(ticket.record): ticket for ticket in tickets}
        self._finished = finished
        self._failed = failed
        self._released = released

    def finish(self, record: Record, *, hold_key: bool = False) -> None:
        """What remains is durable elsewhere: the offset may pass.

        With `hold_key` the slot stays taken and the key's next record waits until `release`, because the call that
        keeps the key in order is still to be made. A revoke does not wait for it.
        """
        self._finished(self._ticket(record), hold_key)

    def release(self, record: Record) -> None:
        """Free the slot and the key of a record finished with `hold_key`."""
        self._released(self._ticket(record))

    def fail(self, record: Record, error: BaseException) -> None:
        """Let the policy judge the record by this error, as if its handler had raised it."""
        self._failed(self._ticket(record), error)

    def _ticket(self, record: Record) -> Ticket:
        ticket = self._tickets.get(id(record))
        if ticket is None:
            raise BusError("the record is not one of those handed out with these slots")
        return ticket


class SlotHandler(Protocol):
    """Works on records with distinct keys and settles each one by itself, before or after it returns.

    What is not settled when it raises is judged by the error it raises; `BadRecords` is for batch handlers. A key held
    for longer than the watchdog's limit while others wait behind it counts as a stall: give slow calls a deadline.
    """

    async def __call__(self, records: Sequence[Record], slots: Slots, /) -> None:
        """Begin the records."""
        ...


class InSlots(Struct, frozen=True):
    """A slot handler and how many records it may have at once, held keys included."""

    handle: SlotHandler
    slots: int
