"""The lanes of a router under test, drained when a test says so."""

from collections.abc import Sequence
from typing import Any

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
        for _ in range(2):
            # The first round learns which accounts' lanes it needs.
            self.drainer.wake()
            await self.drainer.drain_once()

    async def tell(self, records: Sequence[Any]) -> None:
        self.told += [record for record in records if isinstance(record, StepAbandoned)]
        await self.router.tell(*records)

    async def _publish(self, granted: Sequence[Granted]) -> None:
        self.granted += [item.message_id for item in granted]
        await self._granting.publish(granted)

    async def hear(self) -> list[StepAbandoned]:
        """Hand the handler what was told on the topic itself, each fact once. Returns it."""
        told = [record for record in await self.router._all(ATTEMPTS, None) if isinstance(record, StepAbandoned)]
        for record in told:
            await self.router.tell(record)
        return told
