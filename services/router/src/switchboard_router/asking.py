"""Remembers what people are asked on channels where they answer by typing (ADR 0019)."""

from collections.abc import Iterable

from switchboard.rules.choices import answers
from switchboard.store import choices as store
from switchboard.store.choices import OpenChoices
from switchboard.store.messages import Message
from switchboard.store.pool import Connection
from switchboard_router.context import RouterContext

#: What the JSON of every message with something to choose contains. Spares all others being decoded.
_MARKS = (b'"choices":', b'"sections":')


async def remember_choices(
    context: RouterContext, connection: Connection, dispatched: Iterable[tuple[Message, int]]
) -> None:
    """Keep the captions of messages with choices that go out by these steps. Messages without any cost nothing."""
    await store.remember(connection, choices_of(context, dispatched))


def choices_of(context: RouterContext, dispatched: Iterable[tuple[Message, int]]) -> list[OpenChoices]:
    """What is to be remembered of messages that go out by these steps."""
    asked = []
    for message, number in dispatched:
        if not _may_ask(message.body):
            continue
        step = message.route.steps[number]
        manifest = context.manifests.get(step.channel)
        content = message.content()
        if manifest is None or not manifest.answers_by_text or content is None:
            continue
        known = answers(content, message.id, step.channel, context.publications.hash_key)
        if known:
            asked.append(OpenChoices(message.app_id, step.identity, message.id, known))
    return asked


def _may_ask(body: bytes | None) -> bool:
    return body is not None and any(mark in body for mark in _MARKS)
