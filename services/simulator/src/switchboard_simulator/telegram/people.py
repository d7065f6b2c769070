"""The people in the chats: they read, write, press buttons, block and come back."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, structs

from switchboard.ids import mint
from switchboard_simulator.phones import Media, PhoneMessage, Phones
from switchboard_simulator.telegram.bots import Bot, Bots
from switchboard_simulator.telegram.files import Files
from switchboard_simulator.telegram.magic import MagicChats
from switchboard_simulator.telegram.methods import Outgoing
from switchboard_simulator.telegram.objects import (
    Link,
    chat_object,
    media_object,
    message_object,
    stored,
    user_object,
)
from switchboard_simulator.telegram.refused import Refused, bad_request

CHANNEL: Final = "TELEGRAM"
_MOST_QUERIES: Final = 10_000


class CannotDo(Exception):
    """What was asked of a person makes no sense. The text says why and what to do."""


class Spoken(Struct, frozen=True, kw_only=True):
    """What a person sends to a bot: one of text, a file, a place, a contact card."""

    text: str = ""
    #: photo, video, audio, voice, document, sticker; with `file_name`, `content_type` and `content`.
    media_kind: str = ""
    file_name: str = "file"
    content_type: str = "application/octet-stream"
    content: bytes = b""
    location: tuple[float, float] | None = None
    #: First name and number.
    contact: tuple[str, str] | None = None
    #: The number of the bot's message that this answers.
    reply_to: int | None = None


class People:
    """Everyone a bot can talk to."""

    def __init__(
        self, phones: Phones, bots: Bots, files: Files, magic: MagicChats, link: Link, clock: Callable[[], datetime]
    ) -> None:
        self._phones = phones
        self._bots = bots
        self._files = files
        self._magic = magic
        self._link = link
        self._clock = clock
        #: Buttons pressed whose bot has not answered yet.
        self._queries: OrderedDict[str, None] = OrderedDict()

    def check_reachable(self, chat_id: int) -> None:
        """Raises Refused when the person has blocked the bot."""
        if self._phones.is_blocked(CHANNEL, str(chat_id)):
            raise Refused(403, "Forbidden: bot was blocked by the user")

    def check_reply(self, outgoing: Outgoing) -> None:
        """Raises Refused when the message to answer is not in the chat."""
        if outgoing.reply_to is None:
            return
        chat = str(outgoing.chat_id)
        if self._phones.get(CHANNEL, chat) and self._phones.message(CHANNEL, chat, str(outgoing.reply_to)) is None:
            raise bad_request("message to be replied not found")

    def receive(self, bot: Bot, outgoing: Outgoing, ids: list[int], *, shown: bool) -> list[dict[str, Any]]:
        """Put a checked message on the phone under the numbers `ids`. Returns the message objects."""
        at = self._clock()
        kept = stored(outgoing.attachments, self._files, self._link)
        messages = []
        for index, message_id in enumerate(ids):
            item = kept[index] if kept else None
            if shown:
                self._show(bot, outgoing, message_id, at, item[0].caption if item else "", item[2] if item else None)
            carried = (item[0], item[1]) if item else None
            messages.append(message_object(outgoing, bot.user(), message_id, at, carried))
        return messages

    def say(self, chat_id: int, spoken: Spoken, bot_name: str = "") -> int:
        """Let a person write to a bot. Returns the message's number. Raises CannotDo."""
        bot = self._bot_for(chat_id, bot_name)
        message_id = bot.next_message_id()
        at = self._clock()
        message: dict[str, Any] = {
            "message_id": message_id,
            "from": user_object(chat_id),
            "chat": chat_object(chat_id),
            "date": int(at.timestamp()),
        }
        media: tuple[Media, ...] = ()
        if spoken.media_kind:
            file = self._files.add(spoken.file_name, spoken.content_type, spoken.content)
            media = (Media(spoken.media_kind, self._link(file), file.name),)
            message |= media_object(
                spoken.media_kind, file.file_id,
                name=file.name, content_type=file.content_type, size=len(file.content),
            )  # fmt: skip
            if spoken.text:
                message["caption"] = spoken.text
        elif spoken.location is not None:
            message["location"] = {"latitude": spoken.location[0], "longitude": spoken.location[1]}
        elif spoken.contact is not None:
            message["contact"] = {"first_name": spoken.contact[0], "phone_number": spoken.contact[1]}
        elif spoken.text:
            message["text"] = spoken.text
        else:
            raise CannotDo("there is nothing to send: give text, a file, a location or a contact")
        if spoken.reply_to is not None:
            message["reply_to_message"] = self._quoted(bot, chat_id, spoken.reply_to)
        self._tell(bot, chat_id, "message", message)
        self._phones.add(
            CHANNEL, str(chat_id),
            PhoneMessage(
                id=str(message_id), incoming=False, at=at, peer=bot.username, text=spoken.text, media=media,
                location=spoken.location, contact=spoken.contact,
                reply_to=str(spoken.reply_to) if spoken.reply_to is not None else "",
                provider_ids=(f"{chat_id}:{message_id}",),
            ),
        )  # fmt: skip
        return message_id

    def press(self, chat_id: int, message_id: str, data: str) -> None:
        """Let a person press a button under a message. Raises CannotDo if there is no such button."""
        message = self._phones.message(CHANNEL, str(chat_id), message_id)
        if message is None:
            raise CannotDo("there is no such message on that phone")
        button = next((one for row in message.buttons for one in row if data in (one.data, one.text)), None)
        if button is None or button.url:
            raise CannotDo("there is no such button under that message, or it only opens a link")
        self._phones.change(CHANNEL, str(chat_id), structs.replace(message, pressed=button.text))
        if button.asks_for:
            self.say(chat_id, _reply_to_keyboard(button.text, button.asks_for), message.peer)
            return
        bot = self._bot_for(chat_id, message.peer)
        query_id = mint()
        self._queries[query_id] = None
        if len(self._queries) > _MOST_QUERIES:
            self._queries.popitem(last=False)
        self._tell(
            bot, chat_id, "callback_query",
            {
                "id": query_id,
                "from": user_object(chat_id),
                "message": self._quoted(bot, chat_id, int(message_id)),
                "chat_instance": str(chat_id),
                "data": button.data,
            },
        )  # fmt: skip

    def answered(self, query_id: object) -> None:
        """Take an `answerCallbackQuery`. Raises Refused if nobody waits for it."""
        if str(query_id) not in self._queries:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        del self._queries[str(query_id)]

    def block(self, chat_id: int, blocked: bool, bot_name: str = "") -> None:
        """Let a person block a bot or take it back: the bot is told."""
        bot = self._bot_for(chat_id, bot_name)
        before, after = ("member", "kicked") if blocked else ("kicked", "member")
        self._phones.block(CHANNEL, str(chat_id), blocked)
        self._tell(
            bot, chat_id, "my_chat_member",
            {
                "chat": chat_object(chat_id),
                "from": user_object(chat_id),
                "date": int(self._clock().timestamp()),
                "old_chat_member": {"user": bot.user(), "status": before},
                "new_chat_member": {"user": bot.user(), "status": after},
            },
        )  # fmt: skip

    def _tell(self, bot: Bot, chat_id: int, kind: str, content: dict[str, Any]) -> None:
        if not bot.tell(kind, content, twice=self._magic.posts_twice(str(chat_id))):
            raise CannotDo(f"the bot does not take {kind} updates, or has too many waiting")

    def _bot_for(self, chat_id: int, name: str) -> Bot:
        phone = self._phones.get(CHANNEL, str(chat_id))
        bot = self._bots.named(name or (phone.peer if phone else ""))
        if bot is None:
            raise CannotDo("name the bot: there is none of that name, or several and the phone knows none of them")
        return bot

    def _quoted(self, bot: Bot, chat_id: int, message_id: int) -> dict[str, Any]:
        message = self._phones.message(CHANNEL, str(chat_id), str(message_id))
        quoted: dict[str, Any] = {"message_id": message_id, "chat": chat_object(chat_id), "from": bot.user()}
        if message is not None:
            quoted |= {"date": int(message.at.timestamp())} | ({"text": message.text} if message.text else {})
        return quoted

    def _show(
        self, bot: Bot, outgoing: Outgoing, message_id: int, at: datetime, caption: str, media: Media | None
    ) -> None:
        texts = (caption or outgoing.text, *(outgoing.venue or ()))
        contact = outgoing.contact
        self._phones.add(
            CHANNEL, str(outgoing.chat_id),
            PhoneMessage(
                id=str(message_id), incoming=True, at=at, peer=bot.username,
                text="\n".join(text for text in texts if text),
                media=(media,) if media else (),
                buttons=outgoing.buttons,
                location=outgoing.location,
                contact=(f"{contact[0]} {contact[1]}".strip(), contact[2]) if contact else None,
                reply_to=str(outgoing.reply_to) if outgoing.reply_to is not None else "",
                provider_ids=(f"{outgoing.chat_id}:{message_id}",),
            ),
        )  # fmt: skip


def _reply_to_keyboard(text: str, asks_for: str) -> Spoken:
    match asks_for:
        case "location":
            return Spoken(location=(59.3293, 18.0686))
        case "contact":
            return Spoken(contact=("Person", "46700000000"))
        case _:
            return Spoken(text=text)
