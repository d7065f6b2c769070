"""Consent: keywords that people write and opt-outs that channels tell (conversation-api 14).

A change is made once for each cause; what follows from it (callbacks, the confirmation) has ids derived from the
cause, so a record that is seen again tells the same again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import ConsentNotification, ConsentStatus
from switchboard.configuration import App
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity
from switchboard.ids import AppId, MessageId, derive
from switchboard.records import MessageAccepted, MessageReceived
from switchboard.rules.consent import Request, Wish, confirmation, read_request
from switchboard.store import consents as store
from switchboard.store.consents import Change, Origin
from switchboard.store.pool import Connection
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext

#: After MESSAGE_INBOUND of the message that held the keyword.
_AFTER_THE_MESSAGE = 2


async def on_messages(
    context: RouterContext,
    connection: Connection,
    records: Sequence[MessageReceived],
    apps: Mapping[AppId, App],
    now: datetime,
    contacts: Mapping[MessageId, str] | None = None,
) -> list[Outgoing]:
    """Do what keywords ask for. Returns the OPT_IN and OPT_OUT callbacks and the confirmations."""
    changes: list[Change] = []
    outgoing: list[Outgoing] = []
    for record in records:
        app = apps[record.app_id]
        request = _request(record, app)
        if request is None:
            continue
        contact_id = (contacts or {}).get(record.message_id, "")
        if request.wish is not Wish.HELP:
            changes.append(_change(record, request, now))
            outgoing += await callbacks(
                context, app, record.identity, request.wish is Wish.OPT_IN,
                near=record.message_id, accepted_at=record.accepted_at, event_at=record.event_at,
                contact_id=contact_id, sequence=_AFTER_THE_MESSAGE,
            )  # fmt: skip
        # In the secondary mode the app answers.
        answer = _confirmation(context, record, app, request) if app.consent.blocks else None
        if answer is not None:
            outgoing.append(context.publications.accepted(answer))
    await store.change(connection, changes)
    return outgoing


async def callbacks(
    context: RouterContext,
    app: App,
    identity: ChannelIdentity,
    opts_in: bool,
    *,
    near: MessageId,
    accepted_at: datetime,
    event_at: datetime,
    contact_id: str = "",
    sequence: int = 1,
) -> list[Outgoing]:
    """OPT_IN or OPT_OUT. `near` is the id of what it is about."""
    trigger = Trigger.OPT_IN if opts_in else Trigger.OPT_OUT
    notification = ConsentNotification(
        request_id=derive(near, "consent"),
        contact_id=contact_id,
        channel=identity.channel,
        identity=identity.identity,
        status=ConsentStatus.OPT_IN_SUCCEEDED if opts_in else ConsentStatus.OPT_OUT_SUCCEEDED,
        processing_mode=app.processing_mode,
    )
    body = bodies.body(
        trigger, notification, app_id=app.id, project_id=app.project_id, accepted_at=accepted_at, event_at=event_at
    )
    webhooks = await context.configuration.webhooks(app.id)
    return context.publications.callbacks(
        trigger, near, app.project_id, app.id, event_at, body, webhooks, sequence=sequence
    )


def _request(record: MessageReceived, app: App) -> Request | None:
    if not app.consent.is_on or record.message.text_message is None:
        return None
    return read_request(record.message.text_message.text, app.consent)


def _change(record: MessageReceived, request: Request, now: datetime) -> Change:
    return Change(
        app_id=record.app_id,
        project_id=record.project_id,
        identity=record.identity.identity,
        list_type=request.list_type,
        leaves=request.wish is Wish.OPT_OUT,
        origin=Origin.ORIGIN_MO,
        cause=record.message_id,
        at=now,
    )


def _confirmation(
    context: RouterContext, record: MessageReceived, app: App, request: Request
) -> MessageAccepted | None:
    """The answer, from the number that was written to where the channel lets us say so."""
    text = confirmation(request, app.consent)
    if not text:
        return None
    manifest = context.manifests.get(record.identity.channel)
    sender = manifest.sender_property if manifest is not None else ""
    return MessageAccepted(
        message_id=MessageId(derive(record.message_id, "confirmation")),
        project_id=record.project_id,
        app_id=record.app_id,
        accepted_at=record.accepted_at,
        message=AppMessage(text_message=TextMessage(text)),
        mode=app.processing_mode,
        identities=(record.identity,),
        channel_properties={sender: record.sender_id} if sender and record.sender_id else {},
        high_priority=True,
        is_confirmation=True,
    )
