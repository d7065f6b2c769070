"""Builds the channel-adapter: one consumer a channel, its providers' webhooks, and its sessions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from msgspec import Struct

import switchboard_channels
from switchboard.assembly import bus_settings, configured, consuming, key_ring, producing, record_key
from switchboard.bus import Consumer, InSlots, KnownErrors, Producer
from switchboard.channel import registry
from switchboard.channel.contract import (
    PutsTogether,
    RegistersWebhooks,
    RequestAdapter,
    Retracts,
    SessionAdapter,
)
from switchboard.channel.manifest import Connection, Manifest
from switchboard.configuration import Configuration
from switchboard.http.pooled import PooledHttpClient
from switchboard.identity import ChannelName
from switchboard.ids import mint
from switchboard.runtime import Runtime
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard.topics import DISPATCH, BrokenRecord, UnknownRecord
from switchboard_channel_adapter.admission import admissions
from switchboard_channel_adapter.binds import Binds
from switchboard_channel_adapter.claims import Claims
from switchboard_channel_adapter.errands import Errands
from switchboard_channel_adapter.inbound import Facts
from switchboard_channel_adapter.lines import Line, RequestLine, SessionLine
from switchboard_channel_adapter.receipts import Receipts
from switchboard_channel_adapter.recorder import Recorder
from switchboard_channel_adapter.registration import Registration
from switchboard_channel_adapter.retract import Retractor
from switchboard_channel_adapter.settings import AdapterSettings
from switchboard_channel_adapter.submit import Submitter
from switchboard_channel_adapter.upkeep import Upkeep
from switchboard_channel_adapter.webhooks import Webhooks

#: What `Submitter` may meet and what the bus makes of it.
KNOWN_ERRORS = KnownErrors(transient=TRANSIENT_ERRORS, permanent=(BrokenRecord,), unknown_record_type=(UnknownRecord,))
_SIDE_CONNECTIONS = 32

Adapter = RequestAdapter | SessionAdapter


class Parts(Struct, frozen=True):
    """What all channels of one process share. Tests build it themselves."""

    settings: AdapterSettings
    pool: Pool
    producer: Producer
    configuration: Configuration
    #: For sends; a slot each.
    http: PooledHttpClient
    #: For everything beside sends, which must not wait behind them.
    side_http: PooledHttpClient
    #: The installation's key for record keys.
    hash_key: bytes
    #: Names this process, and no other one before or after it.
    owner: str
    #: What its name begins with, as did those of its earlier lives; "" without an ordinal.
    instance: str = ""


@asynccontextmanager
async def compose(runtime: Runtime[AdapterSettings]) -> AsyncIterator[None]:
    """Build everything, in order, and take it down again."""
    settings = runtime.settings
    keys = key_ring(settings)
    manifests = registry.manifests(switchboard_channels)
    adapters = {channel: registry.adapter(switchboard_channels, channel) for channel in settings.channel_names}
    async with (
        configured(runtime, keys, manifests) as configuration,
        producing(runtime) as producer,
        _client(settings.slots) as http,
        _client(_SIDE_CONNECTIONS) as side_http,
    ):
        instance = "" if settings.ordinal is None else f"{runtime.service}-{settings.ordinal}-"
        owner = f"{instance or f'{runtime.service}-'}{mint()}"
        parts = Parts(
            settings, runtime.pool, producer, configuration, http, side_http, record_key(keys), owner, instance
        )
        async with serving(runtime, parts, adapters):
            yield


@asynccontextmanager
async def serving(
    runtime: Runtime[AdapterSettings], parts: Parts, adapters: Mapping[ChannelName, Adapter]
) -> AsyncIterator[None]:
    """Serve these channels."""
    settings = parts.settings
    receipts = Receipts(parts.pool, parts.producer, topic_prefix=settings.topic_prefix)
    facts = {channel: _facts(parts, adapter.manifest, receipts) for channel, adapter in adapters.items()}
    requests: dict[ChannelName, RequestAdapter] = {}
    sessions: dict[ChannelName, SessionAdapter] = {}
    for channel, adapter in adapters.items():
        if adapter.manifest.connection is Connection.REQUEST:
            requests[channel] = cast(RequestAdapter, adapter)
        else:
            sessions[channel] = cast(SessionAdapter, adapter)
    async with AsyncExitStack() as stack:
        webhooks = Webhooks(requests, facts, parts.configuration, parts.side_http)
        stack.push_async_callback(webhooks.stop)
        runtime.app = webhooks.app

        lines: dict[ChannelName, Line] = {c: RequestLine(a, parts.http) for c, a in requests.items()}
        for channel, session_adapter in sessions.items():
            line = lines[channel] = SessionLine()
            binds = Binds(
                session_adapter, line, facts[channel], parts.configuration, parts.pool,
                owner=parts.owner, instance=parts.instance,
            )  # fmt: skip
            stack.push_async_callback(binds.stop)
            await binds.start()

        putting = {c: (a, facts[c]) for c, a in adapters.items() if isinstance(a, PutsTogether)}
        upkeep = Upkeep(parts.pool, parts.configuration, putting, receipts)
        stack.push_async_callback(upkeep.stop)
        upkeep.start()

        if settings.public_url:
            told = {c: a for c, a in adapters.items() if isinstance(a, RegistersWebhooks)}
            registration = Registration(
                told, parts.configuration, parts.pool, parts.side_http, public_url=settings.public_url
            )
            stack.push_async_callback(registration.stop)
            registration.start()

        submitters = _submitters(parts, adapters, lines, receipts)
        for submitter in submitters.values():
            stack.push_async_callback(submitter.stop)
        consumers = [consumer(runtime.service, parts, c, submitter) for c, submitter in submitters.items()]
        await stack.enter_async_context(consuming(runtime, consumers))
        yield


def consumer(service: str, parts: Parts, channel: ChannelName, submitter: Submitter) -> Consumer:
    """The consumer of one channel's dispatch topic."""
    prefix = parts.settings.topic_prefix
    return Consumer(
        bus_settings(parts.settings, service),
        topics=[DISPATCH.name(prefix, channel)],
        group=f"{prefix}channel-adapter.{channel.lower()}",
        # Waiting records need room beside those under way.
        handle=InSlots(submitter, slots=2 * parts.settings.slots),
        producer=parts.producer,
        on_dead_letter=submitter.end_message,
        known=KNOWN_ERRORS,
    )


def _submitters(
    parts: Parts, adapters: Mapping[ChannelName, Adapter], lines: Mapping[ChannelName, Line], receipts: Receipts
) -> dict[ChannelName, Submitter]:
    admission = admissions(parts.settings.slots, adapters)
    claims = Claims(parts.pool, parts.owner)
    recorder = Recorder(parts.pool, parts.producer, receipts, topic_prefix=parts.settings.topic_prefix)
    return {
        channel: Submitter(
            adapter.manifest,
            lines[channel],
            admission=admission[channel],
            claims=claims,
            recorder=recorder,
            configuration=parts.configuration,
            pool=parts.pool,
            errands=_errands(parts, adapter),
            retractor=_retractor(parts, adapter),
        )
        for channel, adapter in adapters.items()
    }


def _errands(parts: Parts, adapter: Adapter) -> Errands:
    return Errands(
        adapter,
        parts.side_http,
        parts.configuration,
        parts.pool,
        parts.producer,
        topic_prefix=parts.settings.topic_prefix,
        hash_key=parts.hash_key,
    )


def _retractor(parts: Parts, adapter: Adapter) -> Retractor | None:
    if adapter.manifest.can_retract and isinstance(adapter, Retracts):
        return Retractor(adapter, parts.http, parts.configuration, parts.pool)
    return None


def _facts(parts: Parts, manifest: Manifest, receipts: Receipts) -> Facts:
    return Facts(
        manifest,
        parts.pool,
        parts.producer,
        receipts,
        parts.configuration,
        topic_prefix=parts.settings.topic_prefix,
        hash_key=parts.hash_key,
    )


@asynccontextmanager
async def _client(connections: int) -> AsyncIterator[PooledHttpClient]:
    client = PooledHttpClient(max_connections=connections)
    try:
        yield client
    finally:
        await client.close()
