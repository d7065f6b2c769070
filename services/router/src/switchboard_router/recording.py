"""RECORD_NOTIFICATION: a message or event is stored, so its app can read it (conversation-api 9.2).

Where nothing is retained nothing is told. It is the first callback of its stream, so its number is 0.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.bodies import RecordNotification, RecordStatus
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, MessageId, ProjectId
from switchboard.records import ProcessingMode
from switchboard.store.events import StoredEvent
from switchboard.store.messages import Message
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext

_SEQUENCE: Final = 0
_NOBODY: Final = ChannelIdentity(ChannelName("CHANNEL_UNSPECIFIED"), "")


class Stored(Struct, frozen=True):
    """What is stored of a message or event, as its app is told."""

    id: MessageId
    project_id: ProjectId
    app_id: AppId
    mode: ProcessingMode
    at: datetime
    identity: ChannelIdentity
    correlation_id: str = ""
    contact_id: str = ""
    conversation_id: str = ""


async def tell_stored_messages(context: RouterContext, messages: Sequence[Message]) -> list[Outgoing]:
    """The notifications of planned messages to contacts. Most apps ask for none, so that is found out by app."""
    asking = await _asking(context, {message.app_id for message in messages})
    if not asking:
        return []
    return await tell_stored(
        context,
        [
            Stored(
                message.id,
                message.project_id,
                message.app_id,
                message.mode,
                message.accepted_at,
                # As it was planned: a later sight of the record must tell the same.
                message.route.steps[0].identity if message.route.steps else (*message.envelope.identities, _NOBODY)[0],
                message.envelope.correlation_id,
                message.contact_id or "",
                message.conversation_id or "",
            )
            for message in messages
            if message.app_id in asking and message.body_until is not None
        ],
    )


async def tell_stored_events(context: RouterContext, events: Iterable[StoredEvent]) -> list[Outgoing]:
    """The notifications of events in either direction."""
    return await tell_stored(
        context,
        [
            Stored(
                event.id,
                event.project_id,
                event.app_id,
                event.mode,
                event.accepted_at,
                event.identity,
                event.envelope.correlation_id,
                event.contact_id,
                event.conversation_id,
            )
            for event in events
            if event.body_until is not None
        ],
    )


async def tell_stored(context: RouterContext, stored: Iterable[Stored]) -> list[Outgoing]:
    """The notifications of these, for the webhooks that ask."""
    told: list[Outgoing] = []
    for item in stored:
        notification = RecordNotification(
            entity_id=item.id,
            record_status=RecordStatus.EVENT_RECORD_STORED,
            processing_mode=item.mode,
            channel_identity=item.identity,
            contact_id=item.contact_id,
            conversation_id=item.conversation_id,
        )
        body = bodies.body(
            Trigger.RECORD_NOTIFICATION, notification, app_id=item.app_id, project_id=item.project_id,
            accepted_at=item.at, event_at=item.at, correlation_id=item.correlation_id,
        )  # fmt: skip
        webhooks = await context.configuration.webhooks(item.app_id)
        told += context.publications.callbacks(
            Trigger.RECORD_NOTIFICATION, item.id, item.project_id, item.app_id, item.at, body, webhooks,
            sequence=_SEQUENCE,
        )  # fmt: skip
    return told


async def _asking(context: RouterContext, app_ids: Iterable[AppId]) -> set[AppId]:
    return {
        app_id
        for app_id in app_ids
        if any(
            Trigger.RECORD_NOTIFICATION in webhook.triggers for webhook in await context.configuration.webhooks(app_id)
        )
    }
