"""The phones: what each recipient has received and sent, on every channel."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from msgspec import Struct, field


class Button(Struct, frozen=True, omit_defaults=True):
    """Something a person can press under a message."""

    text: str
    #: What pressing sends back; "" for buttons that open something.
    data: str = ""
    #: What pressing opens.
    url: str = ""
    #: A reply keyboard asks for this: `text`, `location` or `contact`.
    asks_for: str = ""


class Media(Struct, frozen=True, omit_defaults=True):
    """A picture, film, sound or file in a message."""

    #: photo, video, audio, voice, document, animation, sticker.
    kind: str
    #: Where it can be looked at: the sender's link, or a path of the simulator for an upload.
    url: str
    name: str = ""


class PhoneMessage(Struct, frozen=True, omit_defaults=True):
    """One message on a phone."""

    #: Unique on the phone.
    id: str
    #: True: it came to the phone. False: the person wrote it.
    incoming: bool
    at: datetime
    #: The other side: the bot's user name, the number it came from.
    peer: str
    text: str = ""
    media: tuple[Media, ...] = ()
    buttons: tuple[tuple[Button, ...], ...] = ()
    #: Latitude, longitude.
    location: tuple[float, float] | None = None
    #: Name and number of a contact card.
    contact: tuple[str, str] | None = None
    #: Whose message this answers; "" when it answers none.
    reply_to: str = ""
    #: `delivered`; on SMS also what the last receipt said, or `held` while none was given.
    state: str = "delivered"
    provider_ids: tuple[str, ...] = ()
    #: The button the person pressed.
    pressed: str = ""


class Phone(Struct, frozen=True):
    """One recipient on one channel."""

    channel: str
    recipient: str
    #: The person has blocked us: TELEGRAM only.
    blocked: bool = False
    messages: tuple[PhoneMessage, ...] = field(default_factory=tuple)

    @property
    def peer(self) -> str:
        """Whom a reply without a named receiver goes to: the last other side; "" before there was one."""
        return self.messages[-1].peer if self.messages else ""


class _Entry:
    def __init__(self, keep: int) -> None:
        self.messages: deque[PhoneMessage] = deque(maxlen=keep)
        self.blocked = False


class Phones:
    """All phones, the most recently used last. Bounded: the oldest phone and message are forgotten first."""

    def __init__(self, *, phones: int = 2000, messages: int = 200) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._phones = phones
        self._messages = messages
        self._observers: list[Callable[[Phone, PhoneMessage], None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def observe(self, observer: Callable[[Phone, PhoneMessage], None]) -> None:
        """Call `observer` with the phone (without its history) and each message that is new or changed."""
        self._observers.append(observer)

    def add(self, channel: str, recipient: str, message: PhoneMessage) -> None:
        """Show a new message on a phone."""
        entry = self._entry(channel, recipient)
        entry.messages.append(message)
        self._tell(Phone(channel, recipient, entry.blocked), message)

    def change(self, channel: str, recipient: str, message: PhoneMessage) -> None:
        """Replace the message of the same id. One that is forgotten already stays forgotten."""
        entry = self._entry(channel, recipient)
        for index, known in enumerate(entry.messages):
            if known.id == message.id:
                entry.messages[index] = message
                self._tell(Phone(channel, recipient, entry.blocked), message)
                return

    def get(self, channel: str, recipient: str) -> Phone | None:
        """A phone with its messages, oldest first; None if nobody ever wrote to or from it."""
        entry = self._entries.get((channel, recipient))
        return None if entry is None else _phone(channel, recipient, entry)

    def message(self, channel: str, recipient: str, message_id: str) -> PhoneMessage | None:
        """One message on a phone."""
        entry = self._entries.get((channel, recipient))
        found: Iterable[PhoneMessage] = () if entry is None else entry.messages
        return next((message for message in found if message.id == message_id), None)

    def block(self, channel: str, recipient: str, blocked: bool) -> None:
        """Let the person block us, or take us back."""
        self._entry(channel, recipient).blocked = blocked

    def is_blocked(self, channel: str, recipient: str) -> bool:
        """Whether the person has blocked us."""
        entry = self._entries.get((channel, recipient))
        return entry is not None and entry.blocked

    def recent(self, limit: int) -> list[Phone]:
        """The phones used last, newest first."""
        keys = list(reversed(self._entries))[:limit]
        return [_phone(*key, self._entries[key]) for key in keys]

    def clear(self) -> None:
        """Forget every phone."""
        self._entries.clear()

    def _tell(self, phone: Phone, message: PhoneMessage) -> None:
        for observer in self._observers:
            observer(phone, message)

    def _entry(self, channel: str, recipient: str) -> _Entry:
        key = (channel, recipient)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._messages)
            if len(self._entries) > self._phones:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry


def _phone(channel: str, recipient: str, entry: _Entry) -> Phone:
    return Phone(channel, recipient, entry.blocked, tuple(entry.messages))


def now() -> datetime:
    """The wall clock, in UTC: the simulator is outside the system and its scaled time."""
    return datetime.now(UTC)
