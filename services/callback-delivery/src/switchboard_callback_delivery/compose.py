"""Builds callback-delivery: the consumer of the callbacks topic, the drainer of what waits, one recorder for both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from prometheus_client import REGISTRY

from switchboard.assembly import bus_settings, configured, consuming, key_ring, producing
from switchboard.bus import Consumer, InSlots, KnownErrors, Producer
from switchboard.http.address import parse_networks
from switchboard.http.client import HttpClient
from switchboard.http.guarded import GuardedHttpClient
from switchboard.runtime import Runtime
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard.topics import CALLBACKS, BrokenRecord, UnknownRecord
from switchboard_callback_delivery.dead_letters import OnDeadLetter
from switchboard_callback_delivery.delivery import SLOW_SECONDS, Delivery
from switchboard_callback_delivery.destination import Apps
from switchboard_callback_delivery.drainer import Drainer
from switchboard_callback_delivery.flight import Flights
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.orders import Orders
from switchboard_callback_delivery.posting import Poster
from switchboard_callback_delivery.recorder import Recorder
from switchboard_callback_delivery.settings import DeliverySettings
from switchboard_callback_delivery.store.streams import LEASE_SECONDS
from switchboard_callback_delivery.token import Tokens

GROUP: Final = "callback-delivery"
#: How long tries under way may take at the end: as long as one may take, and a little.
_LAST_TRIES_SECONDS: Final = 11.0
#: So many tries, one after the other, end before a lease does.
_TURNS_WITHIN_A_LEASE: Final = int(LEASE_SECONDS // _LAST_TRIES_SECONDS)
#: Callbacks read from one partition and not done, at least. Half of the slots may come from one; what is read beyond
#: that only lies in memory.
_LEAST_READ: Final = 500


@asynccontextmanager
async def compose(runtime: Runtime[DeliverySettings]) -> AsyncIterator[None]:
    """Build everything, in order, and take it down again."""
    settings = runtime.settings
    async with AsyncExitStack() as stack:
        configuration = await stack.enter_async_context(configured(runtime, key_ring(settings), {}))
        producer = await stack.enter_async_context(producing(runtime))
        client = guarded_client(settings)
        stack.push_async_callback(client.close)
        machine = Machine(runtime.pool, configuration, client, settings, DeliveryMetrics(REGISTRY))
        await stack.enter_async_context(machine.running())
        await stack.enter_async_context(consuming(runtime, [machine.consumer(runtime, producer)]))
        yield


def guarded_client(settings: DeliverySettings) -> GuardedHttpClient:
    """The client for users' URLs, with what the operator allows and trusts."""
    certificates = Path(settings.trusted_certificates).read_bytes() if settings.trusted_certificates else b""
    return GuardedHttpClient(allowed=parse_networks(settings.allowed_networks), trusted_certificates_pem=certificates)


class Machine:
    """The parts of one process and how they hang together; a test builds it over its own database and client."""

    def __init__(
        self,
        pool: Pool,
        apps: Apps,
        client: HttpClient,
        settings: DeliverySettings,
        metrics: DeliveryMetrics,
        *,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self._settings = settings
        owner = f"{GROUP}-{uuid4().hex[:12]}"
        quarter = max(1, settings.slots // 4)
        share = min(settings.endpoint_concurrency, quarter, max(1, settings.retry_slots // 4))
        poster = Poster(client, Tokens(client))
        self.recorder = Recorder(
            pool, metrics, trace_ratio=settings.trace_sample_ratio if settings.otlp_endpoint else None
        )
        #: Of events from the topic, slow ones included, and of events that had waited: each has its own room.
        self.flights = Flights(share, metrics, least=quarter, most=settings.slots)
        # What awaits its turn here has its lease already, and must not lose it while the tries before it time out.
        self.retries = Flights(share, metrics, most=_TURNS_WITHIN_A_LEASE * share)
        self.drainer = Drainer(
            pool=pool,
            apps=apps,
            poster=poster,
            recorder=self.recorder,
            flights=self.retries,
            owner=owner,
            slots=settings.retry_slots,
            idle_seconds=settings.drain_seconds,
            suspend_after=timedelta(hours=settings.suspend_after_hours),
        )
        self.orders = Orders(pool=pool, apps=apps, poster=poster, drainer=self.drainer, owner=owner)
        self.delivery = Delivery(
            pool=pool,
            apps=apps,
            poster=poster,
            recorder=self.recorder,
            flights=self.flights,
            metrics=metrics,
            owner=owner,
            on_due=self.drainer.wake,
            slow_seconds=slow_seconds,
        )
        self.recorder.on_due = self.drainer.wake
        self.on_dead_letter = OnDeadLetter(pool, apps)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all but the consumer, which is started after and stopped before."""
        self.drainer.start()
        self.delivery.start()
        self.orders.start()
        try:
            yield
        finally:
            await self.orders.stop()
            await self.drainer.stop()
            await asyncio.gather(self.flights.stop(_LAST_TRIES_SECONDS), self.retries.stop(_LAST_TRIES_SECONDS))
            await self.delivery.stop()
            await self.recorder.stop()

    def consumer(self, runtime: Runtime[DeliverySettings], producer: Producer) -> Consumer:
        """The consumer of the callbacks topic."""
        settings = self._settings
        return Consumer(
            bus_settings(settings, runtime.service),
            topics=[CALLBACKS.name(settings.topic_prefix)],
            group=f"{settings.topic_prefix}{GROUP}",
            handle=InSlots(self.delivery, slots=settings.slots),
            max_in_flight_per_partition=max(_LEAST_READ, settings.slots // 2),
            producer=producer,
            on_dead_letter=self.on_dead_letter,
            known=KNOWN_ERRORS,
        )


KNOWN_ERRORS: Final = KnownErrors(
    transient=TRANSIENT_ERRORS, permanent=(BrokenRecord,), unknown_record_type=(UnknownRecord,)
)
