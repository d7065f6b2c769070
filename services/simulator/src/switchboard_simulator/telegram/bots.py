"""The bots there are, and what each remembers: its webhook, its updates, its message numbers."""

import asyncio
import hashlib
import re
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard_simulator.telegram.methods import Fields
from switchboard_simulator.telegram.refused import Refused, bad_request

_TOKEN: Final = re.compile(r"([0-9]{1,15}):([A-Za-z0-9_-]{3,100})")
_SECRET_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
#: What a bot is told unless it asks for more or less.
_ORDINARY_UPDATES: Final = frozenset(("message", "callback_query", "my_chat_member"))
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_MOST_PENDING: Final = 10_000


class Webhook(Struct, frozen=True):
    """Where a bot's updates are posted."""

    url: str
    secret_token: str = ""
    allowed_updates: tuple[str, ...] = ()
    max_connections: int = 40


class Update(Struct, frozen=True):
    """One thing a bot is told."""

    update_id: int
    #: `message`, `callback_query` or `my_chat_member`.
    kind: str
    content: dict[str, Any]
    #: Posted once more after it was taken.
    twice: bool = False


class Bot:
    """One bot."""

    def __init__(self, token: str, started_at: datetime) -> None:
        self.id = int(token.partition(":")[0])
        self.username = f"sim_{self.id}_bot"
        self.account = account_of(token)
        self.webhook: Webhook | None = None
        self.pending: deque[Update] = deque()
        self.last_error: tuple[datetime, str] | None = None
        #: Set when there may be something to post.
        self.wake = asyncio.Event()
        # Numbers go on from the clock, so that a restarted simulator never gives one out twice.
        since = started_at.timestamp() - _EPOCH
        self._message_id = int(since * 10)
        self._update_id = int(since * 1000)

    def next_message_id(self) -> int:
        """A new message number: rising, 32 bits."""
        self._message_id += 1
        return self._message_id

    def tell(self, kind: str, content: dict[str, Any], *, twice: bool = False) -> bool:
        """Queue an update for the webhook. False if the bot does not want that kind or has too many already."""
        wanted = self.webhook.allowed_updates if self.webhook else ()
        if kind not in (wanted or _ORDINARY_UPDATES) or len(self.pending) >= _MOST_PENDING:
            return False
        self._update_id += 1
        self.pending.append(Update(self._update_id, kind, content, twice))
        self.wake.set()
        return True

    def set_webhook(self, fields: Fields) -> None:
        """Take a `setWebhook` call. Raises Refused.

        http is taken beside https, and every port, as a local Bot API server does.
        """
        url = fields.get("url")
        if not url:
            self.webhook = None
            return
        if not isinstance(url, str) or not re.fullmatch(r"https?://[^/\s]+\S*", url):
            raise bad_request("bad webhook: invalid webhook URL specified")
        secret = fields.get("secret_token") or ""
        if not isinstance(secret, str) or (secret and not _SECRET_TOKEN.fullmatch(secret)):
            raise bad_request("secret token contains unallowed characters")
        self.webhook = Webhook(url, secret, _names(fields.get("allowed_updates")), _connections(fields))
        if _is_true(fields.get("drop_pending_updates")):
            self.pending.clear()
        self.wake.set()

    def delete_webhook(self, fields: Fields) -> None:
        """Take a `deleteWebhook` call."""
        self.webhook = None
        if _is_true(fields.get("drop_pending_updates")):
            self.pending.clear()

    def webhook_info(self) -> dict[str, Any]:
        """The answer to `getWebhookInfo`."""
        info: dict[str, Any] = {
            "url": self.webhook.url if self.webhook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(self.pending),
        }
        if self.last_error is not None:
            at, message = self.last_error
            info |= {"last_error_date": int(at.timestamp()), "last_error_message": message}
        if self.webhook is not None:
            info["max_connections"] = self.webhook.max_connections
            if self.webhook.allowed_updates:
                info["allowed_updates"] = list(self.webhook.allowed_updates)
        return info

    def user(self) -> dict[str, Any]:
        """The bot as a user object."""
        return {"id": self.id, "is_bot": True, "first_name": f"Bot {self.id}", "username": self.username}


class Bots:
    """All bots. A well-formed token makes its bot; one whose secret begins with `revoked` is refused."""

    def __init__(self, started_at: datetime, limit: int = 1000) -> None:
        self._bots: OrderedDict[str, Bot] = OrderedDict()
        self._started_at = started_at
        self._limit = limit

    def __iter__(self) -> Iterator[Bot]:
        return iter(self._bots.values())

    def of_token(self, token: str) -> Bot:
        """The bot of a token. Raises Refused with 404 or 401, as the Bot API does."""
        shape = _TOKEN.fullmatch(token)
        if shape is None:
            raise Refused(404, "Not Found")
        if shape[2].startswith("revoked"):
            raise Refused(401, "Unauthorized")
        bot = self._bots.get(token)
        if bot is None:
            if len(self._bots) >= self._limit:
                raise Refused(401, "Unauthorized")
            bot = self._bots[token] = Bot(token, self._started_at)
        return bot

    def named(self, name: str) -> Bot | None:
        """The newest bot of a user name or id; with no name the only bot there is. None if that names none."""
        if not name:
            return next(iter(self._bots.values())) if len(self._bots) == 1 else None
        known = name.removeprefix("@")
        return next((bot for bot in reversed(self._bots.values()) if known in (bot.username, str(bot.id))), None)


def account_of(token: str) -> str:
    """How the log names a token without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise bad_request("can't parse allowed updates JSON object") from None
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _connections(fields: Fields) -> int:
    try:
        wanted = int(str(fields.get("max_connections") or 40))
    except ValueError:
        wanted = 40
    return min(100, max(1, wanted))


def _is_true(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1")
