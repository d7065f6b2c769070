"""Magic chats: a chat id that ends in 99 and two digits always misbehaves in the same way.

`7000009908` is throttled whoever asks; so is any other id ending in 9908. Endings that mean the same on SMS are the
same there (`smsc/magic.py`). One table, shown by `GET /control/magic` and in `docs/reference/simulator.md`.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from switchboard_simulator.faults import Fault, FaultKind

_K = FaultKind


class Magic(Struct, frozen=True):
    """What one ending does."""

    ending: str
    does: str
    fault: Fault
    #: Only the first request of each text meets the fault; the same text again passes.
    first_only: bool = False


def _refusal(code: int, description: str) -> Fault:
    return Fault(kind=_K.REJECT, code=code, description=description)


#: Stands for ten times the chat's own id, below zero, in `migrate_to`.
TEN_TIMES: Final = -1

MAGIC: Final[tuple[Magic, ...]] = (
    Magic("9901", "400: there is no such chat", _refusal(400, "Bad Request: chat not found")),
    Magic("9902", "403: the person never started the bot",
          _refusal(403, "Forbidden: bot can't initiate conversation with a user")),
    Magic("9903", "401: the token is refused", _refusal(401, "Unauthorized")),
    Magic("9904", "500 once, then taken", Fault(kind=_K.SERVER_ERROR, code=500), first_only=True),
    Magic("9905", "500, always", Fault(kind=_K.SERVER_ERROR, code=500)),
    Magic("9906", "429 (retry after 1 s) once, then taken", Fault(kind=_K.THROTTLE), first_only=True),
    Magic("9907", "502 once, then taken", Fault(kind=_K.SERVER_ERROR, code=502), first_only=True),
    Magic("9908", "429 (retry after 1 s), always", Fault(kind=_K.THROTTLE)),
    Magic("9909", "not taken, no answer", Fault(kind=_K.TIMEOUT_BEFORE_ACCEPT)),
    Magic("9910", "taken and shown, no answer", Fault(kind=_K.TIMEOUT_AFTER_ACCEPT)),
    Magic("9912", "not taken, connection cut", Fault(kind=_K.CUT_BEFORE_ACCEPT)),
    Magic("9913", "taken and shown, connection cut", Fault(kind=_K.CUT_AFTER_ACCEPT)),
    Magic("9914", "taken, but the phone never shows it", Fault(kind=_K.SILENCE)),
    Magic("9915", "taken; every update from this chat is posted twice", Fault(kind=_K.DUPLICATE)),
    Magic("9927", "answered after 2 s", Fault(kind=_K.SLOW, delay_seconds=2)),
    Magic("9928", "taken, the answer is a proxy's HTML page", Fault(kind=_K.GARBAGE)),
    Magic("9929", "403: the person has blocked the bot", _refusal(403, "Forbidden: bot was blocked by the user")),
    Magic("9940", "403: the person's account is gone", _refusal(403, "Forbidden: user is deactivated")),
    Magic("9941", "400: the media link cannot be fetched",
          _refusal(400, "Bad Request: failed to get HTTP URL content")),
    Magic("9942", "400: the media is of a wrong type",
          _refusal(400, "Bad Request: wrong type of the web page content")),
    Magic("9943", "413: the media is too large", _refusal(413, "Request Entity Too Large")),
    Magic("9944", "400: the group became a supergroup with ten times the id",
          Fault(kind=_K.REJECT, code=400, migrate_to=TEN_TIMES,
                description="Bad Request: group chat was upgraded to a supergroup chat")),
)  # fmt: skip

_BY_ENDING: Final = {magic.ending: magic for magic in MAGIC}


class MagicChats:
    """The magic of a chat, remembering which texts were tried already."""

    def __init__(self, remember: int = 10_000) -> None:
        self._tried: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._remember = remember

    def fault(self, chat_id: str, text: str) -> Fault | None:
        """The fault this chat's id stands for, if it is one and still applies to this text."""
        magic = _BY_ENDING.get(chat_id[-4:])
        if magic is None:
            return None
        if magic.first_only and self._is_tried(chat_id, text):
            return None
        return magic.fault

    def posts_twice(self, chat_id: str) -> bool:
        """Whether updates from this chat are posted twice."""
        magic = _BY_ENDING.get(chat_id[-4:])
        return magic is not None and magic.fault.kind is FaultKind.DUPLICATE

    def clear(self) -> None:
        """Forget what was tried."""
        self._tried.clear()

    def _is_tried(self, chat_id: str, text: str) -> bool:
        key = (chat_id, text)
        if key in self._tried:
            return True
        self._tried[key] = None
        if len(self._tried) > self._remember:
            self._tried.popitem(last=False)
        return False
