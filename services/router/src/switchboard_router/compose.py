"""Builds the router: three consumers over one set of rules, and the work that waits in the database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

import switchboard_channels
from switchboard.assembly import bus_settings, configured, consuming, key_ring, producing, record_key, running
from switchboard.bus import BatchHandler, Consumer
from switchboard.channel.registry import manifests, renderers
from switchboard.lanes.drainer import Drainer
from switchboard.runtime import Runtime
from switchboard.telemetry.export import TraceExport
from switchboard.topics import ATTEMPTS, INBOUND, MESSAGES_ACCEPTED, Topic
from switchboard_router.accepted import OnAccepted
from switchboard_router.attempts import OnAttempts
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
        )
        async with consuming(runtime, consumers(context, runtime)), waiting_work(context, runtime):
            yield


@asynccontextmanager
async def waiting_work(context: RouterContext, runtime: Runtime[RouterSettings]) -> AsyncIterator[None]:
    """What waits in the database: lanes to drain, deadlines to watch, traces to export."""
    settings = runtime.settings
    loops: dict[str, Callable[[], Awaitable[None]]] = {}
    if settings.otlp_endpoint:
        loops["traces"] = TraceExport(runtime.pool, OTLPSpanExporter(endpoint=settings.otlp_endpoint)).run
    if not settings.drain_lanes:
        async with running(runtime, **loops):
            yield
        return
    granting = Granting(context, settings.topic_prefix)
    drainer = Drainer(runtime.pool, granting.publish, granting.tell, owner=f"{runtime.service}-{settings.ordinal or 0}")
    async with running(runtime, drainer=drainer.run, **loops):
        yield
    await drainer.give_up()


def consumers(context: RouterContext, runtime: Runtime[RouterSettings]) -> Sequence[Consumer]:
    """One consumer for each topic the router reads."""
    settings = runtime.settings
    handlers: tuple[tuple[Topic[Any], str, BatchHandler], ...] = (
        (MESSAGES_ACCEPTED, "router.accepted", OnAccepted(context)),
        (ATTEMPTS, "router.attempts", OnAttempts(context)),
        (INBOUND, "router.inbound", OnInbound(context)),
    )
    return [
        Consumer(
            bus_settings(settings, runtime.service),
            topics=[topic.name(settings.topic_prefix)],
            group=f"{settings.topic_prefix}{group}",
            handle=handle,
            producer=context.producer,
            on_dead_letter=OnDeadLetter(context),
        )
        for topic, group, handle in handlers
    ]
