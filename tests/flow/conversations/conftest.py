"""A router with an app in CONVERSATION mode, and what it told."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.flow.router.conftest import (  # noqa: F401 - fixtures
    PHONE,
    PROJECT,
    Router,
    make_router,
    pool,
    store,
)

from switchboard.configuration import App, RetentionPolicy
from switchboard.configuration.app import ReportView
from switchboard.content import ContactMessage, TextMessage
from switchboard.identity import ChannelIdentity
from switchboard.ids import MessageId, mint, time_of
from switchboard.records import ChangesRecord, MessageAccepted, MessageReceived, ProcessingMode
from switchboard.topics import CHANGES
from switchboard.trigger import Trigger
from switchboard_router.changes import OnChanges

ALL = tuple(trigger for trigger in Trigger if trigger is not Trigger.SMART_CONVERSATIONS)


class Talks:
    """A router whose app keeps conversations."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.pool = router.context.pool

    @property
    def app(self) -> App:
        return self.router.app

    def send(self, *identities: ChannelIdentity, **fields: Any) -> MessageAccepted:
        """A message as ingress publishes it."""
        fields = {"correlation_id": "", **fields}
        record = self.router.accepted(*identities)
        return msgspec.structs.replace(record, **{"mode": ProcessingMode.CONVERSATION, **fields})

    def received(self, identity: ChannelIdentity = PHONE, text: str = "Thank you") -> MessageReceived:
        """A message from a person as an adapter publishes it."""
        message_id = MessageId(mint())
        return MessageReceived(
            message_id=message_id, project_id=PROJECT, app_id=self.app.id, identity=identity,
            message=ContactMessage(text_message=TextMessage(text)), provider_id=message_id,
            accepted_at=time_of(message_id), event_at=time_of(message_id), sender_id="46701239999",
        )  # fmt: skip

    async def change(self, *records: ChangesRecord) -> None:
        """Feed facts of API writes."""
        await OnChanges(self.router.context)([self.router.record(CHANGES, record) for record in records])

    async def told(self, trigger: Trigger) -> list[Any]:
        """The bodies of this trigger's callbacks, each once, in the order they were published."""
        found = {c.callback_id: c for c in await self.router.callbacks() if c.trigger is trigger}
        return [msgspec.json.decode(callback.body) for callback in found.values()]


@pytest.fixture
def make_talks(make_router: Any, store: Any) -> Any:  # noqa: F811
    async def make(triggers: Sequence[Trigger] = ALL, **fields: Any) -> Talks:
        router: Router = await make_router(triggers)
        given = {"processing_mode": ProcessingMode.CONVERSATION, "retention_policy": RetentionPolicy()} | fields
        router.app = msgspec.structs.replace(router.app, **given)
        await store.update_app(router.app)
        # The change is heard of a moment later; the router below reads it itself.
        router.context.configuration._apps.drop(router.app.id)
        return Talks(router)

    return make


@pytest.fixture
async def talks(make_talks: Any) -> Talks:
    made: Talks = await make_talks(conversation_metadata_report_view=ReportView.FULL)
    return made
