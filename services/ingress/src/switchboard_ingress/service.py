"""The composition root of ingress: everything is built here, in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

import switchboard_channels
from switchboard.assembly import record_key
from switchboard.bus import BusSettings, Producer
from switchboard.channel.manifest import Manifest
from switchboard.channel.preview import Previews
from switchboard.channel.registry import manifests, renderers
from switchboard.configuration import Configuration, ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.runtime import Runtime
from switchboard.secrets import KeyRing
from switchboard.store.outbox import OutboxRelay
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard_ingress.api import Api
from switchboard_ingress.apps import Apps
from switchboard_ingress.auth import Authenticator, TokenMint
from switchboard_ingress.callbacks import Callbacks
from switchboard_ingress.capability import Capabilities
from switchboard_ingress.consents import Consents
from switchboard_ingress.contacts import Contacts
from switchboard_ingress.conversations import Conversations
from switchboard_ingress.events import Events
from switchboard_ingress.explain import Explaining
from switchboard_ingress.idempotency import IdempotencyKeys
from switchboard_ingress.limits import ProjectRate, WaitingCounts
from switchboard_ingress.messages import Messages
from switchboard_ingress.paging import PageTokens
from switchboard_ingress.send import Sending, SendPolicy, SendRules
from switchboard_ingress.settings import IngressSettings
from switchboard_ingress.timelines import Timelines
from switchboard_ingress.webhooks import Webhooks
from switchboard_ingress.writing import Writer

log = structlog.get_logger(__name__)

#: How often old idempotency keys are looked for.
_SWEEP_SECONDS = 600.0


@asynccontextmanager
async def compose(runtime: Runtime[IngressSettings]) -> AsyncIterator[None]:
    """Build ingress into a runtime; it works while this context is open."""
    channels = manifests(switchboard_channels)
    async with serving(runtime.settings, runtime.pool, channels, renderers(switchboard_channels)) as api:
        runtime.app = api
        yield


@asynccontextmanager
async def serving(
    settings: IngressSettings,
    pool: Pool,
    channels: Mapping[ChannelName, Manifest],
    previews: Mapping[ChannelName, Previews],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Api]:
    """The HTTP application with all that works behind it."""
    keys = KeyRing.parse(settings.secret_keys.get_secret_value())
    async with AsyncExitStack() as stack:
        configuration = Configuration(ConfigurationStore(pool, keys, channels))
        await configuration.start()
        stack.push_async_callback(configuration.stop)
        bus = BusSettings(
            bootstrap=settings.kafka_bootstrap,
            topic_prefix=settings.topic_prefix,
            client_id="ingress",
            publish_timeout_seconds=settings.produce_seconds,
        )
        producer = Producer(bus)
        await producer.start()
        stack.push_async_callback(producer.stop)
        waiting = WaitingCounts(pool)
        stack.push_async_callback(waiting.stop)
        idempotency = IdempotencyKeys(pool, timedelta(hours=settings.idempotency_hours))
        sweep = asyncio.create_task(_sweep(idempotency, clock))
        stack.callback(sweep.cancel)
        rules = SendRules(channels, settings.unconfigured_channel)
        sending = Sending(
            configuration,
            producer,
            idempotency,
            waiting,
            rules,
            SendPolicy(
                topic_prefix=settings.topic_prefix,
                hash_key=record_key(keys),
                produce_seconds=settings.produce_seconds,
                max_pending=settings.max_pending_sends,
                strict_ids=settings.strict_ids,
            ),
        )
        apps = Apps(configuration, channels, waiting, settings.default_processing_mode)
        tokens = PageTokens(keys.derive("page-tokens"))
        messages = Messages(pool, configuration, channels, tokens)
        relay = OutboxRelay(pool, producer)
        relaying = asyncio.create_task(relay.run())
        stack.push_async_callback(_end, relaying)
        writer = Writer(pool, relay, settings.topic_prefix)
        webhooks = Webhooks(configuration.store, apps)
        yield Api(
            Authenticator(configuration, TokenMint(keys, clock, settings.token_seconds)),
            ProjectRate(settings.project_requests_per_second),
            sending,
            messages,
            apps,
            webhooks,
            Callbacks(pool, apps, webhooks, tokens),
            Explaining(pool, configuration, rules, previews, strict_ids=settings.strict_ids),
            Timelines(pool),
            Events(pool, configuration, sending, rules, tokens, strict_ids=settings.strict_ids),
            Capabilities(pool, configuration, sending, rules, strict_ids=settings.strict_ids),
            Consents(pool, apps, tokens),
            Contacts(writer, configuration, channels, tokens),
            Conversations(writer, configuration, channels, messages, tokens, settings.injection_days),
            settings.max_body_bytes,
        )


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _sweep(keys: IdempotencyKeys, clock: Callable[[], datetime]) -> None:
    while True:
        try:
            while await keys.forget_old(clock()):
                pass
        except TRANSIENT_ERRORS as error:
            log.warning("old idempotency keys stay for now", error=type(error).__name__)
        await asyncio.sleep(_SWEEP_SECONDS)
