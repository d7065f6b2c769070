"""Capability: who is asked about whom, and what the answers lead to (conversation-api 4.7)."""

from collections.abc import Sequence

from msgspec import UNSET

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import CapabilityNotification, CapabilityStatus
from switchboard.configuration import App
from switchboard.ids import ContactId
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AskCapability, CapabilityAnswered, CapabilityAsked
from switchboard.store import capabilities as store
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext
from switchboard_router.persons import Person

_NOT_CONFIGURED = Reason(ReasonCode.CHANNEL_CONFIGURATION_MISSING, "The channel is not configured in the app.")


def ask(
    context: RouterContext,
    query: CapabilityAsked,
    app: App | None,
    person: Person | None,
) -> list[Outgoing]:
    """What a query leads to: one question for each channel that can tell, else the answer that it cannot.

    The same for the same query, so it may be seen again.
    """
    if app is None or app.project_id != query.project_id:
        return []
    outgoing: list[Outgoing] = []
    contact_id = query.contact_id if person is None else ContactId(person.contact_id)
    for identity in query.identities if person is None else person.identities:
        manifest = context.manifests.get(identity.channel)
        account = context.configuration.account_key(app, identity.channel)
        if manifest is not None and manifest.tells_capability and account is not None:
            order = AskCapability(
                query_id=query.query_id, project_id=query.project_id, app_id=query.app_id, account=account,
                identity=identity, request_id=query.request_id, asked_at=query.asked_at, contact_id=contact_id,
            )  # fmt: skip
            outgoing.append(context.publications.order(order))
            continue
        answer = CapabilityAnswered(
            query_id=query.query_id, project_id=query.project_id, app_id=query.app_id, identity=identity,
            request_id=query.request_id, asked_at=query.asked_at, answered_at=query.asked_at,
            status=CapabilityStatus.CAPABILITY_UNKNOWN, contact_id=contact_id,
            reason=_NOT_CONFIGURED if account is None else None,
        )  # fmt: skip
        outgoing.append(context.publications.inbound(answer))
    return outgoing


async def remember(
    context: RouterContext, connection: Connection, answers: Sequence[CapabilityAnswered]
) -> list[Outgoing]:
    """Keep what channels said, for routes, and tell the apps."""
    told = [answer for answer in answers if answer.status != CapabilityStatus.CAPABILITY_UNKNOWN]
    await store.remember(connection, told, context.capability_kept)
    outgoing: list[Outgoing] = []
    for answer in answers:
        outgoing += await _callbacks(context, answer)
    return outgoing


async def _callbacks(context: RouterContext, answer: CapabilityAnswered) -> list[Outgoing]:
    notification = CapabilityNotification(
        request_id=answer.request_id,
        contact_id=answer.contact_id or "",
        channel=answer.identity.channel,
        identity=answer.identity.identity,
        capability_status=CapabilityStatus(answer.status),
        channel_capabilities=answer.features if answer.status == CapabilityStatus.CAPABILITY_PARTIAL else UNSET,
        reason=UNSET if answer.reason is None else answer.reason,
    )
    body = bodies.body(
        Trigger.CAPABILITY, notification,
        app_id=answer.app_id, project_id=answer.project_id, accepted_at=answer.asked_at, event_at=answer.answered_at,
    )  # fmt: skip
    webhooks = await context.configuration.webhooks(answer.app_id)
    return context.publications.callbacks(
        Trigger.CAPABILITY, answer.query_id, answer.project_id, answer.app_id, answer.answered_at, body, webhooks,
        causes=(answer.identity.channel, answer.identity.identity),
    )  # fmt: skip
