"""A choice answered by text: on channels without buttons a person types what they read (conversation-api 7.5). Pure.

The captions of the last choices sent to somebody are kept as keyed hashes; a text that equals one of them is the
answer to it (ADR 0019).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from switchboard.content import (
    AppMessage,
    CardMessage,
    CarouselMessage,
    Choice,
    ChoiceMessage,
    ListMessage,
    postback_of,
)
from switchboard.identity import ChannelName, keyed_hash
from switchboard.transcode import select

#: How long the captions of a message are known.
REMEMBERED_SECONDS: Final = 24 * 3600


class Answer(Struct, frozen=True):
    """One way to answer: the hash of what is typed, and the postback it stands for."""

    caption: bytes
    postback: str


def answers(message: AppMessage, message_id: str, channel: ChannelName, hash_key: bytes) -> tuple[Answer, ...]:
    """The answers to a message's text and list choices as `channel` gets them. Empty for a message without any."""
    content = select(message, channel)
    return tuple(Answer(_hash(caption, hash_key), postback) for caption, postback in _answers(content, message_id))


def answered(text: str, known: Sequence[Answer], hash_key: bytes) -> str | None:
    """The postback that a text answers with. None if it is none of the answers, or two of them."""
    caption = _hash(text, hash_key)
    postbacks = [answer.postback for answer in known if answer.caption == caption]
    return postbacks[0] if len(postbacks) == 1 else None


def _answers(content: object, message_id: str) -> Iterator[tuple[str, str]]:
    """Captions and postbacks."""
    match content:
        case ChoiceMessage(choices=choices) | CardMessage(choices=choices):
            yield from _of_choices(choices, message_id)
        case CarouselMessage():
            for card in content.cards:
                yield from _of_choices(card.choices, message_id)
            yield from _of_choices(content.choices, message_id)
        case ListMessage():
            for choice in (item.choice for section in content.sections for item in section.items):
                if choice is not None:
                    # The same default as that of other choices (conversation-api 5.6).
                    yield choice.title, choice.postback_data or f"{message_id}_{choice.title}"
        case _:
            return


def _of_choices(choices: Iterable[Choice], message_id: str) -> Iterator[tuple[str, str]]:
    for choice in choices:
        if choice.text_message is not None:
            yield choice.caption, postback_of(choice, message_id)


def _hash(text: str, hash_key: bytes) -> bytes:
    return keyed_hash(hash_key, "caption", " ".join(text.split()).casefold())
