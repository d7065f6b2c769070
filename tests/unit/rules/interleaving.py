"""A model of the crash and decision rules of DESIGN 5: the real rules, rows and topics in memory, every step atomic.

A router, two adapters and the due-time sweep take steps in random order. A crash forgets whatever its actor had in
hand; records that were not committed are read again. The provider keeps a log, as the real one does. What is checked
afterwards: every message ended, no attempt was submitted twice, first tries went out in the order of their messages,
every callback came at least once and in order.
"""

import random
from collections import defaultdict
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, Rejected, Unknown
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.deadlines import on_due
from switchboard.rules.facts import on_outcome, on_receipt, start
from switchboard.rules.progress import AttemptView, Decision, Effects, Phase, Policy, Progress
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE, Status

T0 = datetime(2026, 11, 21, tzinfo=UTC)
WHY = Reason(ReasonCode.CHANNEL_FAILURE)
ROUTE = Route(
    tuple(
        RouteStep(ChannelIdentity(ChannelName(name), "x"), AccountKey(name), (Status.DELIVERED,), wait_seconds=wait)
        for name, wait in (("RCS", 60), ("SMS", None))
    )
)
POLICY = Policy(retry_seconds=120)
AWAITS = (Phase.SENDING, Phase.CLAIMED, Phase.UNKNOWN)


class Rules(Struct, frozen=True):
    """Which rules of DESIGN 5 are kept. Each broken one must be found out."""

    claim_by_state: bool = True
    publish_before_offset: bool = True
    timers_only_publish: bool = True
    undecided_waits: bool = True


class Key(NamedTuple):
    message: int
    step: int
    submission: int


class Attempt(Struct):
    """A row of `attempts`."""

    state: str = "planned"
    send_before: datetime = T0
    claimed_at: datetime | None = None
    outcome: Outcome | None = None
    republished: bool = False


class Topic:
    """A partition: what was appended, and how far its one group has committed."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.committed = 0


Actor = Generator[None, None, None]


class World:
    """Rows, topics, the provider, the clock; and who is at work."""

    def __init__(self, seed: int, rules: Rules, messages: int = 2) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.now = T0
        self.messages: dict[int, Progress] = {}
        self.attempts: dict[Key, Attempt] = {}
        self.timeline: dict[tuple[int, str], Effects] = {}
        self.next_due: dict[int, datetime] = {}
        self.topics: dict[str, Topic] = defaultdict(Topic)
        self.submitted: list[Key] = []
        self.callbacks: dict[int, list[int]] = defaultdict(list)
        self.raised: dict[int, set[int]] = defaultdict(set)
        self.topics["accepted"].records = list(range(messages))
        self.pending_receipts: list[tuple[Key, Status]] = []

    # -- what actors do, a yield after every atomic step

    def router(self, topic: str) -> Actor:
        """Read on from the committed offset, for ever."""
        while True:
            position = self.topics[topic].committed
            while position < len(self.topics[topic].records):
                record = self.topics[topic].records[position]
                if not self.rules.publish_before_offset:
                    self.topics[topic].committed = position + 1
                    yield
                outputs = self._handle(record)
                yield
                yield from self._publish(outputs)
                position += 1
                self.topics[topic].committed = max(self.topics[topic].committed, position)
                yield
            yield

    def adapter(self, channel: str) -> Actor:
        """Claim, submit, record, publish."""
        while True:
            position = self.topics[channel].committed
            while position < len(self.topics[channel].records):
                key = self.topics[channel].records[position]
                attempt = self.attempts[key]
                while self.rules.undecided_waits and attempt.state == "planned" and self.now >= attempt.send_before:
                    yield
                if self.rules.claim_by_state:
                    is_mine = attempt.state == "planned" and self.now < attempt.send_before
                    if is_mine:
                        attempt.state, attempt.claimed_at = "claimed", self.now
                    yield
                else:
                    is_mine = attempt.state != "finished"
                position += 1
                if self.rules.claim_by_state:
                    self.topics[channel].committed = position
                yield
                if is_mine:
                    yield from self._submit(key, attempt)
                self.topics[channel].committed = max(self.topics[channel].committed, position)
            yield

    def sweep(self) -> Actor:
        """Publish what is due; only after that move the due time on."""
        while True:
            for message, due in sorted(self.next_due.items()):
                if due > self.now or self.messages[message].is_final:
                    continue
                if self.rules.timers_only_publish:
                    self.topics["attempts"].records.append(("due", message, self.now))
                    yield
                    if self.next_due.get(message) == due:
                        self.next_due[message] = self.now + timedelta(seconds=60)
                else:
                    key = self._current(message)
                    if self.messages[message].phase in (Phase.SENDING, Phase.CLAIMED):
                        self.topics[ROUTE.steps[key.step].channel].records.append(key)
                        self.attempts[key].state = "planned"
                        self.attempts[key].send_before = self.now + timedelta(seconds=30)
                    self.next_due[message] = self.now + timedelta(seconds=60)
                yield
            yield

    def provider(self) -> Actor:
        """Send receipts of what was accepted, some time."""
        while True:
            if self.pending_receipts:
                place = self.random.randrange(len(self.pending_receipts))
                key, status = self.pending_receipts.pop(place)
                self.topics["attempts"].records.append(("receipt", key, status))
            yield

    # -- one decision, as the router's transactions make it

    def _handle(self, record: Any) -> list[tuple[int, Effects]]:
        message, cause = _cause(record)
        if (seen := self.timeline.get((message, cause))) is not None:
            return [(message, seen)]
        decision = self._decide(message, record)
        self._save(message, decision)
        if decision.effects or not cause.startswith("due"):
            self.timeline[message, cause] = decision.effects
        return [(message, decision.effects)]

    def _decide(self, message: int, record: Any) -> Decision:
        if isinstance(record, int):
            return start(ROUTE, self.now, None, self.now)
        progress = self.messages[message]
        match record:
            case ("outcome", key, outcome):
                return on_outcome(progress, ROUTE, POLICY, key.step, key.submission, outcome, self.now)
            case ("receipt", key, status):
                place = (key.step, key.submission)
                return on_receipt(progress, ROUTE, *place, "p", status, WHY, self.now, {}, self.now)
            case _:
                return self._decide_due(message, progress)

    def _decide_due(self, message: int, progress: Progress) -> Decision:
        key = self._current(message)
        attempt = self.attempts[key]
        is_told = (message, f"outcome:{key.step}.{key.submission}") in self.timeline
        if attempt.outcome is not None and not is_told and progress.phase in AWAITS:
            return on_outcome(progress, ROUTE, POLICY, key.step, key.submission, attempt.outcome, self.now)
        view = AttemptView(attempt.state, attempt.claimed_at, attempt.send_before, attempt.republished)
        return on_due(progress, ROUTE, POLICY, view, self.now)

    def _save(self, message: int, decision: Decision) -> None:
        progress, effects = decision.progress, decision.effects
        self.messages[message] = progress
        if progress.next_due is None:
            self.next_due.pop(message, None)
        else:
            self.next_due[message] = progress.next_due
        self.raised[message] |= {due.sequence for due in effects.callbacks}
        if effects.cancel and self.attempts[Key(message, *effects.cancel)].state == "planned":
            self.attempts[Key(message, *effects.cancel)].state = "cancelled"
        if effects.dispatch:
            assert progress.claim_due_at is not None
            self.attempts[Key(message, *effects.dispatch)] = Attempt(send_before=progress.claim_due_at)
        if effects.redispatch:
            assert progress.claim_due_at is not None
            again = self.attempts[Key(message, *effects.redispatch)]
            again.send_before, again.republished = progress.claim_due_at, True

    def _publish(self, outputs: list[tuple[int, Effects]]) -> Actor:
        for message, effects in outputs:
            for due in effects.callbacks:
                self.callbacks[message].append(due.sequence)
                yield
            order = effects.dispatch or effects.redispatch
            if order is not None:
                key = Key(message, *order)
                attempt = self.attempts.get(key)
                if attempt is None or attempt.state == "planned":
                    if attempt is None:
                        self.attempts[key] = Attempt(send_before=self.now + timedelta(seconds=30))
                    self.topics[ROUTE.steps[key.step].channel].records.append(key)
                yield

    def _submit(self, key: Key, attempt: Attempt) -> Actor:
        self.submitted.append(key)
        kind = self.random.choice(["accept", "accept", "reject", "busy", "lost"])
        if kind in ("accept", "lost"):
            self.pending_receipts.append((key, self.random.choice([Status.DELIVERED, Status.FAILED])))
        yield
        outcomes: dict[str, Outcome] = {
            "accept": Accepted(("p",)),
            "reject": Rejected(WHY),
            "busy": FailedForNow(WHY),
            "lost": Unknown(WHY, ("p",)),
        }
        attempt.state, attempt.outcome = "finished", outcomes[kind]
        yield
        self.topics["attempts"].records.append(("outcome", key, attempt.outcome))
        yield

    def _current(self, message: int) -> Key:
        progress = self.messages[message]
        return Key(message, progress.step, progress.submission)

    # -- running it

    def run(self, steps: int = 120) -> None:
        """Random steps with crashes, then a calm end: everything that is due happens, nobody dies any more."""
        makers = {
            "accepted": lambda: self.router("accepted"),
            "attempts": lambda: self.router("attempts"),
            "RCS": lambda: self.adapter("RCS"),
            "SMS": lambda: self.adapter("SMS"),
            "sweep": self.sweep,
            "provider": self.provider,
        }
        actors = {name: make() for name, make in makers.items()}
        names = list(actors)
        for _ in range(steps):
            name = self.random.choice(names)
            if self.random.random() < 0.06 and name != "provider":
                actors[name] = makers[name]()
            next(actors[name])
            if self.random.random() < 0.1:
                self.now += timedelta(seconds=self.random.choice([1, 10, 31, 61, 200]))
        for _ in range(60):
            for _ in range(40):
                for actor in actors.values():
                    next(actor)
            if self.messages and all(progress.is_final for progress in self.messages.values()) and self._is_quiet():
                return
            if self.next_due:
                self.now = max(self.now, min(self.next_due.values())) + timedelta(seconds=1)

    def _is_quiet(self) -> bool:
        return not self.pending_receipts and all(t.committed >= len(t.records) for t in self.topics.values())

    def faults(self) -> list[str]:
        """What is wrong at the end."""
        found = []
        if len(self.messages) < len(self.topics["accepted"].records):
            found.append("a message was never planned")
        for message, progress in self.messages.items():
            if not progress.is_final:
                found.append(f"message {message} never ended: {progress.phase}")
            if not self.raised[message] <= set(self.callbacks[message]):
                found.append(f"message {message}: a callback was raised and never published")
            first_seen = list(dict.fromkeys(self.callbacks[message]))
            if first_seen != sorted(first_seen):
                found.append(f"message {message}: callbacks out of turn: {first_seen}")
            if progress.status is Status.FAILED and any(
                step.status in POSITIVE for step in progress.ledger.steps.values()
            ):
                found.append(f"message {message} was delivered and ended FAILED")
        if len(self.submitted) != len(set(self.submitted)):
            found.append("an attempt was submitted twice")
        first_tries = [key.message for key in self.submitted if (key.step, key.submission) == (0, 1)]
        if first_tries != sorted(first_tries):
            found.append(f"first tries out of turn: {first_tries}")
        return found


def _cause(record: Any) -> tuple[int, str]:
    match record:
        case int():
            return record, "accepted"
        case ("outcome", key, _):
            return key.message, f"outcome:{key.step}.{key.submission}"
        case ("receipt", key, status):
            return key.message, f"receipt:{key.step}.{key.submission}:{status}"
        case ("due", message, at):
            return message, f"due:{at.isoformat()}"
        case _:
            raise AssertionError(record)
