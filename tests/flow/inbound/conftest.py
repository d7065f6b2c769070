"""A router whose app asks for every callback, what people and channels do to it, and what it told."""

from typing import Any

import msgspec
import pytest
from tests.flow.router.conftest import (  # noqa: F401 - fixtures
    CHAT,
    PHONE,
    PROJECT,
    Router,
    make_router,
    pool,
    store,
)

from switchboard.configuration import App
from switchboard.content import AppEvent, AppMessage, ContactMessage, TextMessage
from switchboard.identity import ChannelIdentity
from switchboard.ids import MessageId, ProjectId, mint, time_of
from switchboard.records import (
    CapabilityAsked,
    EventAccepted,
    InboundRecord,
    MessageAccepted,
    MessageReceived,
    ProcessingMode,
)
from switchboard.rules.consent import ConsentList
from switchboard.store import consents
from switchboard.store.consents import AuditRecord
from switchboard.topics import ATTEMPTS, INBOUND, MESSAGES_ACCEPTED
from switchboard.trigger import Trigger
from switchboard_router.accepted import OnAccepted
from switchboard_router.attempts import OnAttempts
from switchboard_router.inbound import OnInbound

EVERY = tuple(trigger for trigger in Trigger if trigger is not Trigger.SMART_CONVERSATIONS)


class Listener:
    """A router, fed with everything that people do."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.pool = router.context.pool

    @property
    def app(self) -> App:
        return self.router.app

    # -- records

    def said(self, text: str, identity: ChannelIdentity = PHONE, **fields: Any) -> MessageReceived:
        """A message from a person as an adapter publishes it."""
        message_id = MessageId(mint())
        given: dict[str, Any] = {
            "message": ContactMessage(text_message=TextMessage(text)),
            "sender_id": "46701239999",
        } | fields
        return MessageReceived(
            message_id=message_id, project_id=PROJECT, app_id=self.app.id, identity=identity, provider_id=message_id,
            accepted_at=time_of(message_id), event_at=time_of(message_id), **given,
        )  # fmt: skip

    def fact(self, kind: type[Any], name: str, identity: ChannelIdentity | None = CHAT, **fields: Any) -> Any:
        """A fact from a channel; `name` is the field of its id."""
        fact_id = MessageId(mint())
        whom = {} if identity is None else {"identity": identity}
        return kind(
            **{name: fact_id}, project_id=PROJECT, app_id=self.app.id, accepted_at=time_of(fact_id),
            event_at=time_of(fact_id), **whom, **fields,
        )  # fmt: skip

    def event(self, name: str, *identities: ChannelIdentity, **fields: Any) -> EventAccepted:
        """An event for a person as ingress publishes it."""
        event_id = MessageId(mint())
        given: dict[str, Any] = {"project_id": PROJECT, "mode": self.app.processing_mode, "metadata": "tag-1"} | fields
        return EventAccepted(
            event_id=event_id, app_id=self.app.id, accepted_at=time_of(event_id),
            event=msgspec.json.decode(msgspec.json.encode({name: {}}), type=AppEvent), identities=identities, **given,
        )  # fmt: skip

    def question(self, *identities: ChannelIdentity, request_id: str = "ask-1", **fields: Any) -> CapabilityAsked:
        """A capability query as ingress publishes it."""
        query_id = MessageId(mint())
        return CapabilityAsked(
            query_id=query_id, project_id=PROJECT, app_id=self.app.id, asked_at=time_of(query_id),
            request_id=request_id, mode=ProcessingMode.DISPATCH, identities=identities, **fields,
        )  # fmt: skip

    def choices(self, *captions: str) -> AppMessage:
        """A message with these choices; each one's postback is its caption's first letter."""
        choices = [{"text_message": {"text": caption}, "postback_data": caption[0]} for caption in captions]
        content = {"choice_message": {"text_message": {"text": "Which?"}, "choices": choices}}
        return msgspec.json.decode(msgspec.json.encode(content), type=AppMessage)

    # -- doing

    async def hear(self, *records: InboundRecord) -> None:
        await OnInbound(self.router.context)([self.router.record(INBOUND, record) for record in records])

    async def accept(self, *records: MessageAccepted | EventAccepted | CapabilityAsked) -> None:
        await OnAccepted(self.router.context)([self.router.record(MESSAGES_ACCEPTED, record) for record in records])

    async def attempts(self, *records: Any) -> None:
        await OnAttempts(self.router.context)([self.router.record(ATTEMPTS, record) for record in records])

    # -- looking

    async def told(self, trigger: Trigger) -> list[Any]:
        """The bodies of this trigger's callbacks, each once, in the order they were published."""
        found = {c.callback_id: c for c in await self.router.callbacks() if c.trigger is trigger}
        return [msgspec.json.decode(callback.body) for callback in found.values()]

    async def confirmations(self) -> list[MessageAccepted]:
        """What the service sends by itself, each once."""
        found = await self.router._all(MESSAGES_ACCEPTED, None)
        return list({record.message_id: record for record in found if isinstance(record, MessageAccepted)}.values())

    async def learned(self) -> list[InboundRecord]:
        """What the router itself published about people."""
        return await self.router._all(INBOUND, None)

    async def lists(self, identity: ChannelIdentity = PHONE) -> set[ConsentList]:
        async with self.pool.acquire() as connection:
            found = await consents.lists_of(connection, {(self.app.id, identity.identity)})
        return found.get((self.app.id, identity.identity), set())

    async def audit(self, identity: ChannelIdentity = PHONE) -> list[AuditRecord]:
        return await consents.audit(self.pool, self.app.id, identity.identity)


@pytest.fixture
def listen(make_router: Any, store: Any) -> Any:  # noqa: F811
    """Make a router whose app has these settings."""

    async def make(**settings: Any) -> Listener:
        router: Router = await make_router(EVERY)
        router.app = msgspec.structs.replace(router.app, **settings)
        await store.update_app(router.app)
        # The change is heard of a moment later; the router below reads it itself.
        router.context.configuration._apps.drop(router.app.id)
        return Listener(router)

    return make


@pytest.fixture
async def listener(listen: Any) -> Listener:
    made: Listener = await listen()
    return made


__all__ = ["CHAT", "PHONE", "PROJECT", "Listener", "ProjectId"]
