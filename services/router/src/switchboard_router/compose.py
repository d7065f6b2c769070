"""Builds the router: three consumers over one set of rules, and the work that waits in the database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import switchboard_channels
from switchboard.assembly import bus_settings, configured, consuming, key_ring, producing, record_key
from switchboard.bus import BatchHandler, Consumer
from switchboard.channel.registry import manifests, renderers
from switchboard.runtime import Runtime
from switchboard.topics import ATTEMPTS, INBOUND, MESSAGES_ACCEPTED, Topic
from switchboard_router.accepted import OnAccepted
from switchboard_router.attempts import OnAttempts
from switchboard_router.context import RouterContext
from switchboard_router.dead_letters import OnDeadLetter
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
        )
        async with consuming(runtime, consumers(context, runtime)):
            yield


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
