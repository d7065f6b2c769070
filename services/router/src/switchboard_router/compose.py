"""Builds the router: one consumer a topic over one set of rules, and the work that waits in the database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import switchboard_channels
from switchboard.assembly import bus_settings, configured, consuming, key_ring, producing, record_key, running
from switchboard.bus import BatchHandler, Consumer
from switchboard.bus.settlement import Settlement
from switchboard.channel.registry import manifests, renderers
from switchboard.lanes.drainer import Drainer
from switchboard.lanes.gone import GoneApps
from switchboard.lanes.idle import IdleLanes
from switchboard.runtime import Runtime
from switchboard.settings import CommonSettings
from switchboard.store.expiry import ConversationSweep, ReplyContextSweep
from switchboard.store.inbound_sweeps import EventSweep, MemorySweep
from switchboard.store.pool import database_now
from switchboard.store.sweeps import BodySweep, DaySweep, DueSweep, Sweeper
from switchboard.telemetry.export import TraceExport
from switchboard.topics import ATTEMPTS, CHANGES, INBOUND, MESSAGES_ACCEPTED, Topic
from switchboard_router.accepted import OnAccepted
from switchboard_router.attempts import OnAttempts
from switchboard_router.changes import OnChanges
from switchboard_router.context import RouterContext
from switchboard_router.dead_letters import OnDeadLetter
from switchboard_router.granting import Granting
from switchboard_router.inbound import OnInbound
from switchboard_router.outputs import Publications
from switchboard_router.settings import RouterSettings


@asynccontextmanager
async def compose(runtime: Runtime[RouterSettings]) -> AsyncIterator[None]:
    """Build everything, in order, and take it down again."""
    settings = runtime.settings
    keys = key_ring(settings)
    channels = manifests(switchboard_channels)
    async with configured(runtime, keys, channels) as configuration, producing(runtime) as producer:
        context = RouterContext(
            pool=runtime.pool,
            producer=producer,
            configuration=configuration,
            publications=Publications(settings.topic_prefix, record_key(keys), channels),
            manifests=channels,
            renderers=renderers(switchboard_channels),
            default_lane_rate=settings.default_lane_rate,
            trace_ratio=settings.trace_sample_ratio if settings.otlp_endpoint else None,
            capability_kept=timedelta(hours=settings.capability_hours),
        )
        async with consuming(runtime, consumers(context, runtime)), waiting_work(context, runtime):
            yield


@asynccontextmanager
async def waiting_work(context: RouterContext, runtime: Runtime[RouterSettings]) -> AsyncIterator[None]:
    """What waits in the database: lanes to drain, deadlines to watch, contents to purge, traces to export."""
    settings = runtime.settings
    granting = Granting(context, settings.topic_prefix)
    # Without an ordinal of its own an instance has no name that another one could not have, too.
    owner = None if settings.ordinal is None else f"{runtime.service}-{settings.ordinal}"
    drainer = Drainer(runtime.pool, granting.publish, granting.tell, owner=owner)
    settlement = Settlement(
        bus_settings(settings, runtime.service),
        {group_of(group, settings): topic.name(settings.topic_prefix) for topic, group in READS},
        partial(_now, context),
    )
    sweeper = Sweeper(
        [
            DueSweep(runtime.pool, granting.tell),
            GoneApps(runtime.pool, granting.tell),
            IdleLanes(runtime.pool),
            BodySweep(runtime.pool, settlement.settled),
            DaySweep(runtime.pool),
            EventSweep(runtime.pool, granting.tell_events, settlement.settled),
            MemorySweep(runtime.pool),
            ConversationSweep(runtime.pool),
            ReplyContextSweep(runtime.pool),
        ]
    )
    loops: dict[str, Callable[[], Awaitable[None]]] = {"drainer": drainer.run, "sweeps": sweeper.run}
    if settings.otlp_endpoint:
        # Imported where it is used: it costs each start a third of a second.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        loops["traces"] = TraceExport(runtime.pool, OTLPSpanExporter(endpoint=settings.otlp_endpoint)).run
    async with running(runtime, **loops):
        yield
    await drainer.give_up()
    await settlement.stop()


#: The topics the router reads, and the groups it reads them in.
READS: Final[tuple[tuple[Topic[Any], str], ...]] = (
    (MESSAGES_ACCEPTED, "router.accepted"),
    (ATTEMPTS, "router.attempts"),
    (INBOUND, "router.inbound"),
    (CHANGES, "router.changes"),
)


#: Batches of one topic under way at once. They mostly take turns in the same lanes: more would only be smaller.
BATCHES_AT_ONCE: Final = 2


def group_of(group: str, settings: CommonSettings) -> str:
    """A consumer group's name in this installation."""
    return f"{settings.topic_prefix}{group}"


def consumers(context: RouterContext, runtime: Runtime[RouterSettings]) -> Sequence[Consumer]:
    """One consumer for each topic the router reads."""
    settings = runtime.settings
    handlers: tuple[BatchHandler, ...] = (
        OnAccepted(context), OnAttempts(context), OnInbound(context), OnChanges(context),
    )  # fmt: skip
    return [
        Consumer(
            bus_settings(settings, runtime.service),
            topics=[topic.name(settings.topic_prefix)],
            group=group_of(group, settings),
            handle=handle,
            producer=context.producer,
            on_dead_letter=OnDeadLetter(context),
            concurrency=BATCHES_AT_ONCE,
        )
        for (topic, group), handle in zip(READS, handlers, strict=True)
    ]


async def _now(context: RouterContext) -> datetime:
    async with context.connection() as connection:
        return await database_now(connection)
