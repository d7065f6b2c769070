"""What the router's handlers work with, built once by the composition root."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import ModuleType

from msgspec import Struct, field

from switchboard.bus import Producer
from switchboard.channel.manifest import Manifest
from switchboard.configuration import Configuration
from switchboard.identity import ChannelName
from switchboard.lanes import LaneMemory
from switchboard.store.pool import ACQUIRE_TIMEOUT_SECONDS, Connection, Pool
from switchboard_router.outputs import Publications


class RouterContext(Struct, frozen=True):
    """Everything a handler may touch. Rules get none of it."""

    pool: Pool
    producer: Producer
    configuration: Configuration
    publications: Publications
    manifests: Mapping[ChannelName, Manifest]
    #: The `render` module of each channel.
    renderers: Mapping[ChannelName, ModuleType]
    #: Messages a second per app and channel where the app does not say.
    default_lane_rate: float
    #: Share of messages traced in any case. None: traces go nowhere.
    trace_ratio: float | None = None
    #: How long what a channel said about somebody's capability keeps it out of routes.
    capability_kept: timedelta = timedelta(hours=24)
    #: The lanes as this process wrote them last.
    lanes: LaneMemory = field(default_factory=LaneMemory)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A database connection, within a bounded time. Raises TimeoutError if all are busy."""
        async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
            yield connection
