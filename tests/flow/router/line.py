"""The lanes of a router under test, drained when a test says so."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.flow.router.conftest import Router

from switchboard.ids import MessageId
from switchboard.lanes.drainer import Drainer
from switchboard.lanes.round import Granted
from switchboard.records import StepAbandoned
from switchboard.topics import ATTEMPTS
from switchboard_router.granting import Granting


class Line:
    """A drainer whose records go to the router's handler at once."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.granted: list[MessageId] = []
        self.told: list[StepAbandoned] = []
        self._granting = Granting(router.context, router.prefix)
        self.drainer = Drainer(router.context.pool, self._publish, self.tell)

    async def drain(self, seconds: float = 0) -> None:
        """Let time pass, then give out what is due."""
        await self.router.context.pool.execute(
            "UPDATE clock SET shift = shift + make_interval(secs => $1)", float(seconds)
        )
        await self._look_twice(self.drainer)

    async def lease_and_die(self, seconds: float) -> None:
        """Let time pass, then have another drainer give out slots and die before it publishes anything."""

        async def die(_granted: Sequence[Granted]) -> None:
            raise ConnectionError

        pool = self.router.context.pool
        await pool.execute("UPDATE clock SET shift = shift + make_interval(secs => $1)", float(seconds))
        dying = Drainer(pool, die, self.tell)
        with pytest.raises(ConnectionError):
            await self._look_twice(dying)
        assert not await pool.fetchval("SELECT count(*) FROM lane_items WHERE token IS NULL")

    async def tell(self, records: Sequence[Any]) -> None:
        self.told += [record for record in records if isinstance(record, StepAbandoned)]
        await self.router.tell(*records)

    @staticmethod
    async def _look_twice(drainer: Drainer) -> None:
        """The first round learns which accounts' lanes it needs."""
        for _ in range(2):
            drainer.wake()
            await drainer.drain_once()

    async def _publish(self, granted: Sequence[Granted]) -> None:
        self.granted += [item.message_id for item in granted]
        await self._granting.publish(granted)

    async def hear(self) -> list[StepAbandoned]:
        """Hand the handler what was told on the topic itself, each fact once. Returns it."""
        told = [record for record in await self.router._all(ATTEMPTS, None) if isinstance(record, StepAbandoned)]
        for record in told:
            await self.router.tell(record)
        return told
