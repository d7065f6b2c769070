"""`router.changes`: clients changed contacts and conversations, so tell the apps.

The writes are done; a callback's id comes from the write's id, so a record seen again publishes the same again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from switchboard.bus import Outgoing, Record
from switchboard.callbacks.bodies import ContactMerge, ContactNotification, DuplicatedIdentities
from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.crash import crash_point
from switchboard.ids import ProjectId
from switchboard.records import (
    ChangesRecord,
    ContactCreated,
    ContactDeleted,
    ContactMerged,
    ContactUpdated,
    ConversationDeleted,
    ConversationStarted,
    ConversationStopped,
)
from switchboard.topics import CHANGES
from switchboard.trigger import Trigger
from switchboard_router.context import RouterContext
from switchboard_router.people import contact_callbacks, conversation_callbacks
from switchboard_router.reading import decode_all


class OnChanges:
    """Tells batches of changes."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Publish the callbacks of these changes."""
        with decode_all(CHANGES, records) as changes:
            told = [callback for change in changes for callback in await self._callbacks(change)]
            if told:
                await self._context.producer.publish(told)
            crash_point("router.after_publish")

    async def _callbacks(self, change: ChangesRecord) -> list[Outgoing]:
        match change:
            case ContactCreated():
                return await self._contact(change, Trigger.CONTACT_CREATE, change.contact, change.duplicates)
            case ContactUpdated():
                return await self._contact(change, Trigger.CONTACT_UPDATE, change.contact, change.duplicates)
            case ContactDeleted():
                return await self._contact(change, Trigger.CONTACT_DELETE, change.contact)
            case ContactMerged():
                payload = ContactMerge(preserved_contact=change.preserved, deleted_contact=change.deleted)
                return await contact_callbacks(
                    self._context, Trigger.CONTACT_MERGE, payload, change.preserved, change.project_id, change.at,
                    sequence=change.sequence, near=change.change_id,
                )  # fmt: skip
            case ConversationStarted():
                return await self._conversation(change, Trigger.CONVERSATION_START)
            case ConversationStopped():
                return await self._conversation(change, Trigger.CONVERSATION_STOP)
            case ConversationDeleted():
                return await self._conversation(change, Trigger.CONVERSATION_DELETE)
            case _:
                assert_never(change)

    async def _contact(
        self,
        change: ContactCreated | ContactUpdated | ContactDeleted,
        trigger: Trigger,
        contact: Contact,
        duplicates: Sequence[DuplicatedIdentity] = (),
    ) -> list[Outgoing]:
        told = await contact_callbacks(
            self._context, trigger, ContactNotification(contact=contact), contact, change.project_id, change.at,
            sequence=change.sequence, near=change.change_id,
        )  # fmt: skip
        if duplicates:
            told += await self._duplication(change.change_id, change.project_id, change.at, change.sequence + 1,
                                            contact, duplicates)  # fmt: skip
        return told

    async def _duplication(
        self,
        change_id: str,
        project_id: ProjectId,
        at: datetime,
        sequence: int,
        contact: Contact,
        duplicates: Sequence[DuplicatedIdentity],
    ) -> list[Outgoing]:
        payload = DuplicatedIdentities(duplicated_identities=tuple(duplicates))
        return await contact_callbacks(
            self._context, Trigger.CONTACT_IDENTITIES_DUPLICATION, payload, contact, project_id, at,
            sequence=sequence, near=change_id,
        )  # fmt: skip

    async def _conversation(
        self, change: ConversationStarted | ConversationStopped | ConversationDeleted, trigger: Trigger
    ) -> list[Outgoing]:
        return await conversation_callbacks(
            self._context, trigger, change.conversation, change.project_id, change.at,
            sequence=change.sequence, near=change.change_id,
        )  # fmt: skip
