"""Which offset of one partition may be committed: everything before it is finished. Pure."""

from collections import deque


class OffsetTracker:
    """Watches the records of one partition during one assignment.

    Records arrive with rising offsets, not necessarily without gaps, and are finished in any order. The watermark is
    the offset of the oldest unfinished record, or one past the newest when all are finished: the position a new
    owner of the partition must start from so that nothing unfinished is lost.
    """

    __slots__ = ("_finished", "_next", "_open")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self._next: int | None = None

    def arrive(self, offset: int) -> bool:
        """Take note of a record. False if its offset is not past the newest seen: the record is known."""
        if self._next is not None and offset < self._next:
            return False
        self._open.append(offset)
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> bool:
        """Finish a record that arrived. False if it was finished before or lies beyond what was seen."""
        if not self._open or offset < self._open[0] or offset in self._finished:
            return False
        if self._next is None or offset >= self._next:
            return False
        finished = self._finished
        finished.add(offset)
        unfinished = self._open
        while unfinished and unfinished[0] in finished:
            finished.discard(unfinished.popleft())
        return True

    @property
    def watermark(self) -> int | None:
        """The offset to commit, or None before the first record."""
        return self._open[0] if self._open else self._next

    @property
    def unfinished(self) -> int:
        """How many records have arrived and are not finished."""
        return len(self._open) - len(self._finished)
