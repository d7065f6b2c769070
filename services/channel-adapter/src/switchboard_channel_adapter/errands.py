"""What a channel does besides submitting messages: events, and questions about capability (conversation-api 4.6, 4.7).

An event is claimed before it is sent and sent once; what is not told about in time the router calls failed. A question
may be asked twice.
"""

import asyncio
from typing import Final

import structlog

from switchboard.bus import Outgoing, Producer
from switchboard.channel.contract import Account, Capability, SendsEvents, TellsCapability
from switchboard.channel.errors import NotConfigured
from switchboard.channel.outcome import Outcome, Rejected, Unknown
from switchboard.configuration import Configuration
from switchboard.http.client import HttpClient
from switchboard.identity import keyed_hash
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AskCapability, CapabilityAnswered, DispatchEvent, EventFinished
from switchboard.store import events as store
from switchboard.store.pool import Pool, database_now
from switchboard.topics import ATTEMPTS, INBOUND

log = structlog.get_logger(__name__)

#: How long a provider may take.
EVENT_SECONDS: Final = 10.0
QUESTION_SECONDS: Final = 5.0
#: After that, how long the outcome may be on its way before the router gives the event up.
OUTCOME_GRACE_SECONDS: Final = 30.0

_GONE: Final = Reason(ReasonCode.CHANNEL_CONFIGURATION_MISSING, "The account is gone.")
_NO_ANSWER: Final = Reason(ReasonCode.UNKNOWN, "The channel did not answer in time.")
_FAILED: Final = Reason(ReasonCode.INTERNAL_ERROR, "The channel's adapter failed.")
_CANNOT_TELL: Final = "CAPABILITY_UNKNOWN"


class Errands:
    """One channel's events and questions."""

    def __init__(
        self,
        adapter: object,
        http: HttpClient,
        configuration: Configuration,
        pool: Pool,
        producer: Producer,
        *,
        topic_prefix: str,
        hash_key: bytes,
    ) -> None:
        """`http` is not the client of the sends; `hash_key` is the installation's key for record keys."""
        self._adapter = adapter
        self._http = http
        self._configuration = configuration
        self._pool = pool
        self._producer = producer
        self._attempts = ATTEMPTS.name(topic_prefix)
        self._inbound = INBOUND.name(topic_prefix)
        self._hash_key = hash_key

    async def claim(self, order: DispatchEvent) -> bool:
        """Take an event, so that nobody else sends it. False: there is nothing left to do."""
        return await store.claim(self._pool, order.event_id, EVENT_SECONDS + OUTCOME_GRACE_SECONDS)

    async def send(self, order: DispatchEvent) -> None:
        """Send a claimed event and tell how it went."""
        account = await self._configuration.account(order.account, order.app_id)
        outcome = Rejected(_GONE) if account is None else await self._submit(order, account)
        async with self._pool.acquire() as connection:
            now = await database_now(connection)
        finished = EventFinished(order.event_id, outcome, now)
        await self._publish(
            self._attempts, order.event_id.encode(), ATTEMPTS.encode(finished), ATTEMPTS.headers(finished)
        )

    async def ask(self, order: AskCapability) -> None:
        """Ask the provider and tell what it said."""
        account = await self._configuration.account(order.account, order.app_id)
        told = Capability(_CANNOT_TELL, reason=_GONE) if account is None else await self._question(order, account)
        async with self._pool.acquire() as connection:
            now = await database_now(connection)
        answer = CapabilityAnswered(
            query_id=order.query_id,
            project_id=order.project_id,
            app_id=order.app_id,
            identity=order.identity,
            request_id=order.request_id,
            asked_at=order.asked_at,
            answered_at=now,
            status=told.status,
            features=told.features,
            reason=told.reason,
            contact_id=order.contact_id,
        )
        key = keyed_hash(self._hash_key, order.app_id, order.identity.channel, order.identity.identity)
        await self._publish(self._inbound, key, INBOUND.encode(answer), INBOUND.headers(answer))

    async def _submit(self, order: DispatchEvent, account: Account) -> Outcome:
        adapter = self._adapter
        if not isinstance(adapter, SendsEvents):
            return Rejected(Reason(ReasonCode.BAD_REQUEST, f"{order.identity.channel} does not support events."))
        try:
            async with asyncio.timeout(EVENT_SECONDS):
                return (await adapter.send_event(order.event, order.identity, account, self._http)).outcome
        except NotConfigured as error:
            return Rejected(Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, str(error)), misconfigured=True)
        except TimeoutError:
            return Unknown(_NO_ANSWER)
        except Exception as error:  # noqa: BLE001  # a bug of the adapter, and it may have written
            log.error("an adapter raised", channel=order.identity.channel, error=type(error).__name__)
            return Unknown(_FAILED)

    async def _question(self, order: AskCapability, account: Account) -> Capability:
        adapter = self._adapter
        if not isinstance(adapter, TellsCapability):
            return Capability(_CANNOT_TELL)
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                return await adapter.capability(order.identity, account, self._http)
        except NotConfigured as error:
            return Capability(_CANNOT_TELL, reason=Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, str(error)))
        except TimeoutError:
            return Capability(_CANNOT_TELL, reason=_NO_ANSWER)
        except Exception as error:  # noqa: BLE001  # a bug of the adapter
            log.error("an adapter raised", channel=order.identity.channel, error=type(error).__name__)
            return Capability(_CANNOT_TELL, reason=_FAILED)

    async def _publish(self, topic: str, key: bytes, value: bytes, headers: dict[str, bytes]) -> None:
        await self._producer.publish([Outgoing(topic, key, value, headers)])
