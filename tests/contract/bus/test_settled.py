"""When what a handler wrote may be thrown away: no record that led to it can come again."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tests.contract.bus.conftest import Bus, Seen, numbered

from switchboard.bus import Record
from switchboard.bus.settled import Settled
from switchboard.testing import wait_until

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class HandClock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0

    async def __call__(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)


async def test_a_moment_is_settled_once_all_that_was_there_is_committed(bus: Bus) -> None:
    topic, clock, may_finish, seen = await bus.topic(), HandClock(), asyncio.Event(), Seen()
    group = f"{bus.settings.topic_prefix}group"
    may_finish.set()

    async def handle(records: Sequence[Record], /) -> None:
        await seen(records)
        await may_finish.wait()

    consumer = await bus.consume(topic, handle)
    settled = Settled(bus.settings, {group: [topic]}, clock)
    await settled.start()
    try:
        await bus.producer.publish(numbered(topic, 20))
        await wait_until(lambda: consumer.state.finished == 20)
        await wait_until(lambda: _is(settled, BEGIN))

        may_finish.clear()
        await bus.producer.publish(numbered(topic, 20))
        await wait_until(lambda: len(seen.records) > 20)
        clock.seconds = 10
        # What was noted at second 0 is reached; what is noted now is handled, but not committed.
        assert await settled() == BEGIN
        clock.seconds = 20
        assert await settled() == BEGIN

        may_finish.set()
        await wait_until(lambda: _is(settled, BEGIN + timedelta(seconds=20)))
    finally:
        await settled.stop()


async def _is(settled: Settled, moment: datetime) -> bool:
    return await settled() == moment
