"""What the Bot API posts to us: verified by its secret header, then parsed (channel-providers 8, 0.4). Pure."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, field

from switchboard.channel.contract import (
    Account,
    Fact,
    InboundFact,
    OptInFact,
    OptOutFact,
    UnsupportedFact,
    WebhookRequest,
)
from switchboard.channel.errors import InvalidWebhook
from switchboard.content import (
    ChoiceResponseMessage,
    ContactMessage,
    Coordinates,
    FallbackMessage,
    FallbackReason,
    LocationMessage,
    TextMessage,
)
from switchboard.reason import ReasonCode
from switchboard_channels.telegram.postback import pressed

SECRET_HEADER: Final = "x-telegram-bot-api-secret-token"
#: What to ask for in `setWebhook`: what `parse` understands.
ALLOWED_UPDATES: Final = ("message", "callback_query", "my_chat_member")
_OWN_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Chat(Struct, frozen=True):
    id: int
    type: str = "private"


class Point(Struct, frozen=True):
    latitude: float
    longitude: float


class Venue(Struct, frozen=True):
    location: Point
    title: str
    address: str = ""


class Answered(Struct, frozen=True):
    """The message that another one replies to."""

    message_id: int


class Message(Struct, frozen=True):
    message_id: int
    chat: Chat
    #: Unix seconds.
    date: int
    text: str | None = None
    location: Point | None = None
    venue: Venue | None = None
    reply_to_message: Answered | None = None


class Person(Struct, frozen=True):
    id: int


class CallbackQuery(Struct, frozen=True):
    id: str
    person: Person = field(name="from")
    #: Absent when the message with the button is too old.
    message: Message | None = None
    data: str = ""


class Membership(Struct, frozen=True):
    status: str


class MemberChange(Struct, frozen=True):
    chat: Chat
    date: int
    new_chat_member: Membership


class Update(Struct, frozen=True):
    """One update; exactly one of the kinds is given."""

    update_id: int
    #: Kept raw too: what has no mapping is passed on as it came.
    message: Raw = Raw()
    callback_query: CallbackQuery | None = None
    my_chat_member: MemberChange | None = None

    @property
    def provider_id(self) -> str:
        """What a redelivered update is known by."""
        return f"update:{self.update_id}"


class Parsed(Struct, frozen=True):
    """The facts of an update, and the callback query that waits for an answer."""

    facts: tuple[Fact, ...]
    callback_query_id: str = ""


def secret_of(account: Account) -> str:
    """The secret for `setWebhook`: the credential's `callback_secret` where Telegram can carry it, else derived."""
    own = account.credentials.get("callback_secret", "")
    if _OWN_SECRET.fullmatch(own):
        return own
    token = account.credentials.get("token", "")
    return hmac.new(token.encode(), f"telegram webhook {own}".encode(), hashlib.sha256).hexdigest()


def parse(request: WebhookRequest, account: Account) -> Parsed:
    """Verify and read one update. Raises InvalidWebhook."""
    given = request.headers.get(SECRET_HEADER, "")
    if not hmac.compare_digest(given.encode(), secret_of(account).encode()):
        raise InvalidWebhook("the secret header is missing or wrong")
    try:
        update = msgspec.json.decode(request.body, type=Update)
        message = msgspec.json.decode(update.message, type=Message) if update.message else None
    except msgspec.ValidationError:
        return _unsupported(request)
    except msgspec.DecodeError:
        raise InvalidWebhook("the body is not JSON") from None
    if message is not None:
        return _message(update, message, request.received_at)
    if update.callback_query is not None:
        return _choice(update, update.callback_query, request.received_at)
    if update.my_chat_member is not None:
        return _membership(update, update.my_chat_member, request)
    return _unsupported(request)


def _message(update: Update, message: Message, received_at: datetime) -> Parsed:
    reply = message.reply_to_message
    return Parsed(
        (
            InboundFact(
                provider_id=update.provider_id,
                identity=str(message.chat.id),
                message=_content(message, update.message),
                event_at=_moment(message.date, received_at),
                answers=f"{message.chat.id}:{reply.message_id}" if reply else "",
            ),
        )
    )


def _content(message: Message, raw: Raw) -> ContactMessage:
    if message.text is not None:
        return ContactMessage(text_message=TextMessage(message.text))
    if message.venue is not None:
        venue = message.venue
        place = Coordinates(venue.location.latitude, venue.location.longitude)
        return ContactMessage(location_message=LocationMessage(venue.title, place, label=venue.address or None))
    if message.location is not None:
        place = Coordinates(message.location.latitude, message.location.longitude)
        return ContactMessage(location_message=LocationMessage("", place))
    reason = FallbackReason(ReasonCode.UNSUPPORTED_OPERATION, "This kind of Telegram message is passed on as it came.")
    return ContactMessage(fallback_message=FallbackMessage(bytes(raw).decode(errors="replace"), reason))


def _choice(update: Update, query: CallbackQuery, received_at: datetime) -> Parsed:
    button = pressed(query.data)
    question = query.message
    chat_id = question.chat.id if question else query.person.id
    fact = InboundFact(
        provider_id=update.provider_id,
        identity=str(chat_id),
        message=ContactMessage(choice_response_message=ChoiceResponseMessage(button.message_id, button.postback)),
        # A query has no time of its own: the message's date is the question's.
        event_at=received_at,
        answers=f"{chat_id}:{question.message_id}" if question else "",
        postback_key=button.key,
    )
    return Parsed((fact,), query.id)


def _membership(update: Update, change: MemberChange, request: WebhookRequest) -> Parsed:
    identity, event_at = str(change.chat.id), _moment(change.date, request.received_at)
    match change.new_chat_member.status:
        case "kicked" | "left":
            return Parsed((OptOutFact(update.provider_id, identity, event_at),))
        case "member":
            return Parsed((OptInFact(update.provider_id, identity, event_at),))
        case _:
            return _unsupported(request)


def _unsupported(request: WebhookRequest) -> Parsed:
    given: Mapping[str, Any] = {}
    try:
        decoded = msgspec.json.decode(request.body)
        given = decoded if isinstance(decoded, dict) else {}
    except msgspec.DecodeError:
        pass
    number = given.get("update_id")
    name = f"update:{number}" if isinstance(number, int) else hashlib.sha256(request.body).hexdigest()
    payload = request.body.decode(errors="replace")
    return Parsed((UnsupportedFact(name, payload, request.received_at),))


def _moment(seconds: int, received_at: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return received_at
