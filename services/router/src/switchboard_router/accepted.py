"""`router.accepted`: a message was accepted, so plan its route and dispatch its first attempt."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from switchboard.bus import Record
from switchboard.configuration import App
from switchboard.crash import crash_point
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.records import MessageAccepted
from switchboard.rules.progress import OnUnknown, Policy, start
from switchboard.rules.route import Route, plan_route
from switchboard.store import messages as store
from switchboard.store.messages import Envelope, Message
from switchboard.timeline import Entry, Kind
from switchboard.topics import MESSAGES_ACCEPTED
from switchboard_router.carrying_out import Decided, Output, carry_out, publish
from switchboard_router.context import RouterContext
from switchboard_router.pacing import lock, pacing_for
from switchboard_router.reading import decode_all
from switchboard_router.replay import replay

#: The cause of everything that planning a message led to.
CAUSE: Final = "accepted"
#: An older record's rows may have been dropped already: planning it again could send it twice (DESIGN 5).
OLDEST: Final = timedelta(days=4)

_encode: Final = msgspec.json.Encoder().encode
_too_old: Final = Counter("switchboard_accepted_too_old", "Accepted messages refused because they are over 4 days old.")
log = structlog.get_logger()


class OnAccepted:
    """Plans batches of accepted messages."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Plan the messages of these records: rows first, then what they lead to, published."""
        with decode_all(MESSAGES_ACCEPTED, records) as accepted:
            outputs = await self._plan_all(accepted)
            crash_point("router.after_commit")
            await publish(self._context, outputs)
            crash_point("router.after_publish")

    async def _plan_all(self, accepted: Sequence[MessageAccepted]) -> list[Output]:
        apps = {record.app_id: await self._context.configuration.app(record.app_id) for record in accepted}
        async with self._context.connection() as connection, connection.transaction():
            now = await store.database_now(connection)
            fresh = [record for record in accepted if not _is_too_old(record, now)]
            seen = await store.known(connection, [record.message_id for record in fresh])
            new = [self._plan(record, apps[record.app_id], now) for record in fresh if record.message_id not in seen]
            steps = [(item.message.app_id, step) for item in new for step in item.message.route.steps]
            pacing = await pacing_for(self._context, steps)
            lanes = await lock(connection, pacing)
            outputs = await carry_out(self._context, connection, pacing, lanes, new, now, new=True)
            return outputs + await replay(connection, [(message_id, CAUSE) for message_id in seen])

    def _plan(self, record: MessageAccepted, app: App | None, now: datetime) -> Decided:
        route = self._route(record, app)
        decision = start(route, record.accepted_at, record.ttl_seconds, now)
        message = Message(
            id=record.message_id,
            project_id=record.project_id,
            app_id=record.app_id,
            mode=record.mode,
            accepted_at=record.accepted_at,
            high_priority=record.high_priority,
            envelope=_envelope(record, app),
            route=route,
            progress=decision.progress,
            body=_encode(record.message),
            body_until=None if app is None else body_until(app, record.accepted_at),
        )
        return Decided(message, decision, Kind.PLANNED, CAUSE, Entry(traceparent=record.traceparent))

    def _route(self, record: MessageAccepted, app: App | None) -> Route:
        if app is None or app.project_id != record.project_id:
            return Route((), empty_because=Reason(ReasonCode.UNKNOWN_APP, "The app does not exist any more."))
        return plan_route(
            record.identities,
            record.channel_priority_order,
            self._accounts(app),
            self._context.manifests,
            app.fallback_wait_seconds,
            record.channel_steps,
        )

    def _accounts(self, app: App) -> Mapping[ChannelName, AccountKey | None]:
        """What each of the app's channels sends through. None: the credentials name no account there is."""
        return {
            credential.channel: self._context.configuration.account_key(app, credential.channel)
            for credential in app.channel_credentials
        }


def body_until(app: App, accepted_at: datetime) -> datetime | None:
    """Until when a message's content is kept. None: only until the message is final (retention 0)."""
    days = app.dispatch_retention_policy.ttl_days
    return accepted_at + timedelta(days=days) if days else None


def _envelope(record: MessageAccepted, app: App | None) -> Envelope:
    return Envelope(
        identities=record.identities,
        metadata=record.metadata,
        correlation_id=record.correlation_id,
        callback_url=record.callback_url,
        channel_properties=record.channel_properties,
        policy=_policy(record, app),
    )


def _policy(record: MessageAccepted, app: App | None) -> Policy:
    if app is None:
        return Policy(on_unknown=record.on_unknown or OnUnknown.FAIL)
    return Policy(app.message_retry_settings.retry_duration, record.on_unknown or app.on_unknown)


def _is_too_old(record: MessageAccepted, now: datetime) -> bool:
    if now - record.accepted_at <= OLDEST:
        return False
    _too_old.inc()
    log.error("an accepted message is too old to be planned", message_id=record.message_id)
    return True
