"""A load driver: sends at a steady rate with an Idempotency-Key each, and remembers what it was told.

What is not confirmed (503, a broken connection, no answer) is asked again with the same key, as a client should.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import msgspec
from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from tests.faults.evidence import Said, Sent

from switchboard.ids import MessageId
from switchboard.testing import wait_until
from switchboard_standalone.home import Running

#: A driver never asks for more than this.
MOST_PER_SECOND: Final = 200
_ANSWER_SECONDS: Final = 8.0
_PAUSE_SECONDS: Final = 0.25
_MOST_UNDER_WAY: Final = 400
#: One in so many is a person who writes to the app.
_ONE_WRITES_IN: Final = 20

DELIVERED: Final = frozenset({"DELIVERED"})
SUBMITTED: Final = frozenset({"QUEUED_ON_CHANNEL"})


class Kind(Struct, frozen=True, kw_only=True):
    """A kind of message to send. A recipient is made by number, so that several messages share one."""

    to: Callable[[int], tuple[tuple[str, str], ...]]
    #: Out of all, how many are of this kind.
    weight: int = 1
    may_end: frozenset[str] = frozenset()
    high_priority: bool = False
    #: How often the mark is repeated in the text: 20 make three SMS parts.
    marks: int = 1
    #: How many people these go to.
    recipients: int = 25
    fields: Mapping[str, Any] = {}


def _sms(number: int, ending: str = "00") -> tuple[str, str]:
    return "SMS", f"4676{number:05d}{ending:0>4}"


def _chat(number: int) -> tuple[str, str]:
    return "TELEGRAM", str(7_000_000 + number)


def sms_ending(ending: str) -> Callable[[int], tuple[tuple[str, str], ...]]:
    """Recipients whose numbers end so: what the simulator's SMSC does with them is in its README."""
    return lambda number: (_sms(number, ending),)


def telegram_ending(ending: str) -> Callable[[int], tuple[tuple[str, str], ...]]:
    """Chats whose ids end so."""
    return lambda number: (("TELEGRAM", f"7{number:05d}{ending}"),)


SMS: Final = Kind(to=lambda n: (_sms(n),), weight=40, may_end=DELIVERED)
HIGH: Final = Kind(to=lambda n: (_sms(n),), weight=4, may_end=DELIVERED, high_priority=True)
LONG: Final = Kind(to=lambda n: (_sms(n + 500),), weight=4, may_end=DELIVERED, marks=20)
TELEGRAM: Final = Kind(to=lambda n: (_chat(n),), weight=4, may_end=SUBMITTED)
#: The number does not exist: the chat gets it.
FAILOVER: Final = Kind(to=lambda n: (_sms(n, "9901"), _chat(n + 500)), weight=4, may_end=SUBMITTED)
#: A failure for now, then taken.
RETRIED: Final = Kind(to=lambda n: (_sms(n, "9904"),), weight=2, may_end=DELIVERED)
#: Taken and delivered, no answer: unknown. To many people: who waits for an answer holds up what follows to the same.
UNANSWERED: Final = Kind(to=lambda n: (_sms(n, "9910"),), weight=1, recipients=90_000)
EVERYDAY: Final = (SMS, HIGH, LONG, TELEGRAM, FAILOVER, RETRIED)


class Load:
    """Messages at a rate, while the block runs; leaving it waits until each was confirmed."""

    def __init__(
        self,
        running: Running,
        *,
        per_second: int,
        kinds: Sequence[Kind] = EVERYDAY,
        seed: int = 1,
        confirm_seconds: float = 120.0,
    ) -> None:
        assert per_second <= MOST_PER_SECOND
        self._running = running
        self.per_second = per_second
        self._kinds = kinds
        self._random = random.Random(seed)
        self._confirm_seconds = confirm_seconds
        self._run = f"n{random.SystemRandom().getrandbits(32):08x}"
        self._client: Client | None = None
        self._driving: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        #: What people wrote so far.
        self.said: list[Said] = []
        #: What was told 2xx so far.
        self.sent: list[Sent] = []
        #: Answers that were no confirmation, by what they were.
        self.refused: dict[str, int] = {}
        #: Marks asked for and not confirmed, with the last thing they were told.
        self.unconfirmed: dict[str, str] = {}
        #: Answers no client can act on.
        self.wrong: list[str] = []
        self.asked = 0

    async def __aenter__(self) -> Self:
        self._client = ClientBuilder().no_proxy().timeout(timedelta(seconds=_ANSWER_SECONDS)).build()
        self._driving = asyncio.create_task(self._drive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._driving is not None
        assert self._client is not None
        self._driving.cancel()
        await asyncio.gather(self._driving, return_exceptions=True)
        if error is not None:
            for task in self._asking:
                task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=error is not None)
        await self._client.close()
        # Closed it keeps its connections; gone it does not, and ingress may be back where it was.
        self._client = None
        if error is None:
            assert not self.wrong, f"{len(self.wrong)} answers, first {self.wrong[0]}"

    async def caught_up(self, *, seconds: float = 120.0) -> None:
        """Wait until everything is confirmed that is not yet."""
        waiting = set(self.unconfirmed)
        await wait_until(
            lambda: waiting.isdisjoint(self.unconfirmed),
            seconds,
            lambda: f"confirmed; left: {len(waiting & self.unconfirmed.keys())} of {len(waiting)}",
        )

    async def _drive(self) -> None:
        """Start sends on time; one that is late starts at once, unless too many are unanswered already."""
        clock = asyncio.get_running_loop().time
        begun, ordered = clock(), 0
        while True:
            due = begun + ordered / self.per_second
            await asyncio.sleep(max(0.0, due - clock()))
            ordered += 1
            if len(self._asking) < _MOST_UNDER_WAY:
                task = asyncio.create_task(self._ask() if ordered % _ONE_WRITES_IN else self._write(ordered))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self) -> None:
        self.asked += 1
        kind = self._random.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
        to = kind.to(self._random.randrange(kind.recipients))
        mark = f"{self._run}-{self.asked:06d}x"
        # Not the mark: a key is kept for longer than a text may be.
        key = uuid4().hex
        self.unconfirmed[mark] = ""
        body = self._body(kind, to, mark)
        told: set[str] = set()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._confirm_seconds
        while clock() < deadline:
            message_id = await self._post(body, key, mark)
            if message_id is not None:
                told.add(message_id)
                # A client that lost the answer asks again: one in twenty does.
                if len(told) == 1 and self._random.random() < 0.05 and (again := await self._post(body, key, mark)):
                    told.add(again)
                self._confirm(kind, to, mark, MessageId(message_id), told)
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _write(self, number: int) -> None:
        """Have a person write to the app, on either channel in turn."""
        running = self._running
        channel, person = (_sms(number % 50), _chat(number % 50))[number // _ONE_WRITES_IN % 2]
        to = running.number if channel == "SMS" else running.telegram_token.partition(":")[0]
        mark = f"{self._run}-{900_000 + number:06d}x"
        assert self._client is not None
        request = self._client.post(f"{running.simulator_url}/control/inbound").body_json(
            {"channel": channel, "from": person, "to": to, "text": mark}
        )
        try:
            answer = await request.build().send()
        except PyreqwestError as error:
            self.wrong.append(f"{type(error).__name__} of the simulator")
            return
        # 409: no connection has been there yet that could bring it.
        if answer.status == 200:
            self.said.append(Said(mark=mark, channel=channel, at=datetime.now(UTC)))

    def _confirm(
        self, kind: Kind, to: tuple[tuple[str, str], ...], mark: str, message_id: MessageId, told: set[str]
    ) -> None:
        del self.unconfirmed[mark]
        self.sent.append(
            Sent(
                message_id=message_id,
                mark=mark,
                at=datetime.now(UTC),
                to=to,
                high_priority=kind.high_priority,
                may_end=kind.may_end,
                told=frozenset(told),
            )
        )

    async def _post(self, body: bytes, key: str, mark: str) -> str | None:
        """One try. None: not confirmed."""
        running = self._running
        assert self._client is not None
        request = (
            self._client.post(f"{running.base_url}/v1/projects/{running.project_id}/messages:send")
            .basic_auth(running.key_id, running.key_secret)
            .headers({"content-type": "application/json", "idempotency-key": key})
            .body_bytes(body)
        )
        try:
            answer = await request.build().send()
            content = bytes(await answer.bytes())
        except PyreqwestError as error:
            self._refuse(mark, type(error).__name__)
            return None
        if answer.status != 200:
            self._refuse(mark, str(answer.status))
            if answer.status not in (429, 503):
                self.wrong.append(f"{answer.status} {content!r}")
            return None
        found: str = msgspec.json.decode(content)["message_id"]
        return found

    def _body(self, kind: Kind, to: tuple[tuple[str, str], ...], mark: str) -> bytes:
        return msgspec.json.encode(
            {
                "app_id": self._running.app_id,
                "recipient": {
                    "identified_by": {
                        "channel_identities": [{"channel": channel, "identity": identity} for channel, identity in to]
                    }
                },
                "message": {"text_message": {"text": " ".join([mark] * kind.marks)}},
                "channel_priority_order": [channel for channel, _ in to],
                **({"queue": "HIGH_PRIORITY"} if kind.high_priority else {}),
                **kind.fields,
            }
        )

    def _refuse(self, mark: str, what: str) -> None:
        self.unconfirmed[mark] = what
        self.refused[what] = self.refused.get(what, 0) + 1
