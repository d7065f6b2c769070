"""What a message from a person answers: a choice that was typed, and the metadata of what it replies to."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from switchboard.content import ChoiceResponseMessage, ContactMessage
from switchboard.ids import AppId, MessageId
from switchboard.records import MessageReceived
from switchboard.rules.choices import Answer, answered
from switchboard.store import choices as open_choices
from switchboard.store import inbound as store
from switchboard.store.choices import Person
from switchboard.store.pool import Connection
from switchboard_router.context import RouterContext


class Completed(Struct, frozen=True):
    """A message from a person, with what only our own rows know."""

    message: ContactMessage
    #: The `message_metadata` of the message it replies to.
    metadata: str = ""


async def complete(
    context: RouterContext, connection: Connection, records: Sequence[MessageReceived]
) -> Mapping[MessageId, Completed]:
    """The messages that answer something, completed. The others are not there."""
    typed = {record.message_id: _person(record) for record in records if _may_be_typed(context, record)}
    asked = await open_choices.open_for(connection, set(typed.values()))
    found: dict[MessageId, ContactMessage] = {}
    for record in records:
        choice = asked.get(typed[record.message_id]) if record.message_id in typed else None
        found[record.message_id] = record.message if choice is None else _chosen(context, record.message, *choice)
    replied: dict[MessageId, tuple[AppId, str]] = {}
    for record in records:
        if answers := _answers(found[record.message_id]):
            replied[record.message_id] = (record.app_id, answers)
    metadata = await store.metadata_of(connection, set(replied.values()))
    return {
        record.message_id: Completed(
            found[record.message_id], metadata.get(replied.get(record.message_id, ("", ""))[1], "")
        )
        for record in records
        if record.message_id in typed or record.message_id in replied
    }


def _may_be_typed(context: RouterContext, record: MessageReceived) -> bool:
    manifest = context.manifests.get(record.identity.channel)
    return manifest is not None and manifest.answers_by_text and record.message.text_message is not None


def _chosen(
    context: RouterContext, message: ContactMessage, message_id: MessageId, answers: Sequence[Answer]
) -> ContactMessage:
    assert message.text_message is not None
    postback = answered(message.text_message.text, answers, context.publications.hash_key)
    if postback is None:
        return message
    return replace(message, text_message=None, choice_response_message=ChoiceResponseMessage(message_id, postback))


def _answers(message: ContactMessage) -> str:
    """The id of the message that is answered, or ""."""
    if message.choice_response_message is not None:
        return message.choice_response_message.message_id
    return message.reply_to.message_id if message.reply_to is not None else ""


def _person(record: MessageReceived) -> Person:
    return record.app_id, record.identity.channel, record.identity.identity
