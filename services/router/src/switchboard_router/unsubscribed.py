"""Consent at every attempt that is not new, and opt-outs that channels' refusals tell (conversation-api 11.5, 14)."""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from switchboard.bus import Outgoing
from switchboard.channel.outcome import PartlyAccepted, Rejected
from switchboard.configuration import App
from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, MessageId, derive
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AttemptFinished, AttemptsRecord, OptOutReceived, ReceiptReceived
from switchboard.rules.consent import ContentType
from switchboard.rules.facts import on_abandoned
from switchboard.rules.progress import AttemptView, in_turn
from switchboard.rules.route import NOT_OPTED_IN
from switchboard.store import consents
from switchboard.store.messages import Message
from switchboard.store.pool import Connection
from switchboard_router.carrying_out import Decided, leave_channel
from switchboard_router.context import RouterContext


async def leave_out(
    context: RouterContext, connection: Connection, decided: Sequence[Decided], now: datetime
) -> list[Decided]:
    """Take back attempts that would go to somebody who left: the next channel is tried, or the message fails.

    Reads consent once, and only where an app that has it on is about to dispatch, for the first time or once more.
    """
    about_to_go = [
        item.message for item in decided if item.decision.effects.dispatch or item.decision.effects.redispatch
    ]
    blocking = await _blocking(context, about_to_go)
    if not blocking:
        return list(decided)
    asked = [item.message for item in decided if _is_stoppable(item.message, blocking)]
    blocked = await _blocked(
        connection, blocking, [(m, step.identity) for m in asked for step in m.route.steps[m.progress.step :]]
    )
    return [_without(item, blocked, now) if _is_stoppable(item.message, blocking) else item for item in decided]


async def stopped(
    context: RouterContext, connection: Connection, granted: Iterable[tuple[Message, int]]
) -> set[MessageId]:
    """The messages that are not to go out at these steps: they waited in line while their recipients left."""
    attempts = list(granted)
    blocking = await _blocking(context, (message for message, _ in attempts))
    if not blocking:
        return set()
    asked = [
        (message, message.route.steps[step].identity) for message, step in attempts if _is_stoppable(message, blocking)
    ]
    blocked = await _blocked(connection, blocking, asked)
    return {message.id for message, identity in asked if _whom(message, identity) in blocked}


async def _blocking(context: RouterContext, messages: Iterable[Message]) -> dict[AppId, App]:
    """The apps of these messages that stop what goes to people who left."""
    apps = await _apps(context, (message.app_id for message in messages))
    return {app_id: app for app_id, app in apps.items() if app.consent.blocks}


def _is_stoppable(message: Message, blocking: Container[AppId]) -> bool:
    return message.app_id in blocking and not message.envelope.is_confirmation


async def _blocked(
    connection: Connection, blocking: Mapping[AppId, App], asked: Iterable[tuple[Message, ChannelIdentity]]
) -> set[tuple[AppId, str, ContentType]]:
    return await consents.blocked(
        connection,
        [
            consents.Asked(blocking[message.app_id], identity, message.envelope.content_type)
            for message, identity in asked
        ],
    )


def _whom(message: Message, identity: ChannelIdentity) -> tuple[AppId, str, ContentType]:
    return message.app_id, identity.identity, message.envelope.content_type


def _without(item: Decided, blocked: Container[tuple[AppId, str, ContentType]], now: datetime) -> Decided:
    message = item.message
    barred = frozenset(
        number for number, step in enumerate(message.route.steps) if _whom(message, step.identity) in blocked
    )
    item = replace(item, barred=barred)
    again = item.decision.effects.redispatch
    if again is not None and again[0] in barred:
        item = _take_back(item, again, now)
    attempt = item.decision.effects.dispatch
    if attempt is None or attempt[0] not in barred:
        return item
    return leave_channel(item, NOT_OPTED_IN, "opted out", now)


def _take_back(item: Decided, attempt: tuple[int, int], now: datetime) -> Decided:
    """Do not publish once more what nobody has claimed."""
    decision = item.decision
    first = replace(decision, effects=replace(decision.effects, redispatch=None))
    then = on_abandoned(
        decision.progress, item.message.route, AttemptView("planned"), *attempt, NOT_OPTED_IN, False, now
    )
    return replace(item, decision=in_turn(first, then))


async def learn(
    context: RouterContext, facts: Iterable[AttemptsRecord], messages: Mapping[MessageId, Message]
) -> list[Outgoing]:
    """Opt-outs that refusals tell, as facts about the person, where the app has consent on.

    The same refusal seen again makes the same fact.
    """
    refusals = [fact for fact in facts if _says_left(fact) and fact.message_id in messages]
    apps = await _apps(context, (messages[fact.message_id].app_id for fact in refusals))
    outgoing = []
    for fact in refusals:
        message = messages[fact.message_id]
        app = apps.get(message.app_id)
        assert isinstance(fact, AttemptFinished | ReceiptReceived)
        if app is None or not app.consent.is_on or fact.step >= len(message.route.steps):
            continue
        opt_out = OptOutReceived(
            opt_out_id=MessageId(derive(message.id, "opt-out", fact.step, fact.submission)),
            project_id=message.project_id,
            app_id=message.app_id,
            identity=message.route.steps[fact.step].identity,
            accepted_at=_told_at(fact),
            event_at=_told_at(fact),
        )
        outgoing.append(context.publications.inbound(opt_out))
    return outgoing


def _says_left(fact: AttemptsRecord) -> bool:
    match fact:
        case AttemptFinished(outcome=Rejected(reason=reason) | PartlyAccepted(reason=reason)):
            return _is_opt_out(reason)
        case ReceiptReceived(reason=Reason() as reason):
            return _is_opt_out(reason)
        case _:
            return False


def _is_opt_out(reason: Reason) -> bool:
    return reason.code is ReasonCode.RECIPIENT_NOT_OPTED_IN


def _told_at(fact: AttemptFinished | ReceiptReceived) -> datetime:
    return fact.finished_at if isinstance(fact, AttemptFinished) else fact.event_at


async def _apps(context: RouterContext, app_ids: Iterable[AppId]) -> dict[AppId, App]:
    apps = {app_id: await context.configuration.app(app_id) for app_id in set(app_ids)}
    return {app_id: app for app_id, app in apps.items() if app is not None}
