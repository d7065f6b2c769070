"""Every order of outcomes, receipts, timers and operators' words, to a depth, against what is promised (DESIGN 2, 5).

Not random: from each state every fact that can happen in it does. A state that was reached before, by whatever order,
is walked once. Time stands still but for timers, which fire when they are due, and for one jump over the TTL.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.deadlines import OUTCOME_GRACE_SECONDS, on_due
from switchboard.rules.facts import on_abandoned, on_outcome, on_receipt, on_resolved, start
from switchboard.rules.progress import (
    AttemptView,
    CallbackDue,
    Decision,
    OnUnknown,
    Phase,
    Policy,
    Progress,
)
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE, Status
from switchboard.trigger import Trigger

T0: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
#: Facts in a row. Everything that follows from here on is left to timers, which must end the message.
DEPTH: Final = 7
#: How long an adapter may keep an attempt to itself.
ADAPTER_SECONDS: Final = 15 + OUTCOME_GRACE_SECONDS
#: Timers that a message needs at most to end once nobody says anything any more.
MOST_TIMERS: Final = 40

WHY: Final = Reason(ReasonCode.CHANNEL_REJECT, "no")
OUTCOMES: Final[tuple[Outcome, ...]] = (
    Accepted(("p1",)),
    PartlyAccepted(("p1",), WHY),
    Rejected(WHY),
    Rejected(WHY, fails_message=True),
    FailedForNow(WHY),
    Unknown(WHY),
)
RECEIPTS: Final = (Status.DELIVERED, Status.READ, Status.FAILED)

Key = tuple[int, int]
#: Retries end soon, so that what nobody claims ends within a few timers.
PATIENT: Final = Policy(retry_seconds=30)
BOLD: Final = Policy(retry_seconds=30, on_unknown=OnUnknown.FAIL_OVER)


class Attempt(Struct, frozen=True):
    """One submission as the world knows it, the rules' knowledge of it aside."""

    view: AttemptView
    #: An outcome, a receipt or the end of all waiting told what became of it.
    resolved: bool = False
    #: A provider may have it, so receipts may come.
    may_be_there: bool = True


class State(Struct, frozen=True):
    """One message, its attempts, and what its app was told."""

    now: datetime
    progress: Progress
    attempts: tuple[tuple[Key, Attempt], ...] = ()
    told: tuple[tuple[str, int], ...] = ()

    @property
    def by_key(self) -> dict[Key, Attempt]:
        return dict(self.attempts)


class World(Struct, frozen=True):
    """What does not change while one message lives."""

    route: Route
    policy: Policy = PATIENT
    ttl_seconds: int | None = None
    outcomes: tuple[Outcome, ...] = OUTCOMES
    parts: tuple[str, ...] = ("p1",)


def step(channel: str, *, wait: int | None = None, until_read: bool = False, deduplicates: bool = False) -> RouteStep:
    return RouteStep(
        ChannelIdentity(ChannelName(channel), "someone"),
        AccountKey(channel),
        (Status.DELIVERED, Status.READ),
        wait_seconds=wait,
        until_read=until_read,
        deduplicates=deduplicates,
    )


TIMED: Final = Route((step("RCS", wait=60), step("SMS")))
WORLDS: Final[Mapping[str, World]] = {
    "one channel": World(Route((step("SMS"),))),
    "two channels with a timer": World(TIMED),
    "three channels": World(Route((step("RCS", wait=60), step("WHATSAPP", wait=60), step("SMS")))),
    "doubt fails over": World(TIMED, BOLD),
    "read or on": World(Route((step("RCS", wait=60, until_read=True), step("SMS")))),
    "a TTL shorter than the timer": World(TIMED, ttl_seconds=30),
    "a TTL, doubt fails over": World(TIMED, BOLD, ttl_seconds=90),
    "a provider that drops duplicates": World(Route((step("RCS", deduplicates=True), step("SMS")))),
    "a channel that reports nothing first": World(Route((replace(step("TELEGRAM"), receipts=()), step("SMS"))), BOLD),
    "a TTL, and channels that take back": World(
        Route(tuple(replace(step, can_retract=True) for step in TIMED.steps)), ttl_seconds=90
    ),
    "two parts": World(
        TIMED,
        outcomes=(Accepted(("p1", "p2")), PartlyAccepted(("p1",), WHY), Rejected(WHY), Unknown(WHY, parts=2)),
        parts=("p1", "p2"),
    ),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_whatever_happens_in_whatever_order_what_is_promised_holds(world: World) -> None:
    walked = Walk(world)
    walked.run()

    # The walk is no walk if the world lost its facts.
    assert walked.transitions > 1_000
    assert {Status.DELIVERED, Status.READ, Status.FAILED} <= walked.ends


class Walk:
    """Breadth first: every state once, every fact from each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: set[bytes] = set()
        self._ending: set[bytes] = set()
        self.transitions = 0
        self.ends: set[Status] = set()

    def run(self) -> None:
        first = _take(State(T0, _NOTHING), start(self._world.route, T0, self._world.ttl_seconds, T0))
        frontier = [first]
        for _ in range(DEPTH):
            following: list[State] = []
            for state in frontier:
                for after in self._moves(state):
                    name = _name(after)
                    if name not in self._seen:
                        self._seen.add(name)
                        following.append(after)
            frontier = following
        for state in frontier:
            self._ends_by_itself(state)

    def _moves(self, state: State) -> Iterator[State]:
        """The state after each fact that can happen now, checked."""
        for after in _facts(self._world, state):
            self.transitions += 1
            if after.progress.is_final:
                self.ends.add(after.progress.status)
            yield after

    def _ends_by_itself(self, state: State) -> None:
        path: list[bytes] = []
        for _ in range(MOST_TIMERS):
            name = _name(state)
            if state.progress.is_final or name in self._ending:
                self._ending.update(path)
                return
            path.append(name)
            state = _silence(self._world, state)
        raise AssertionError(f"never ends: {state}")


def _facts(world: World, state: State) -> Iterator[State]:
    for key, attempt in state.attempts:
        view = attempt.view
        if view.state == "planned" and view.send_before is not None and state.now < view.send_before:
            yield _with(state, key, view=replace(view, state="claimed", claimed_at=state.now))
        if view.state == "planned":
            for fails_message in (False, True):
                decision = on_abandoned(state.progress, world.route, view, *key, WHY, fails_message, state.now)
                yield _checked(world, state, decision)
        if view.state == "claimed":
            for outcome in world.outcomes:
                finished = _with(state, key, view=replace(view, state="finished"), resolved=True)
                if isinstance(outcome, Unknown):
                    finished = _with(state, key, view=replace(view, state="finished"))
                elif not isinstance(outcome, FailedForNow):
                    finished = _resolved(world, finished, key)
                if isinstance(outcome, Rejected | FailedForNow):
                    finished = _nowhere(finished, key)
                yield _outcome(world, finished, key, outcome)
        if view.state in ("claimed", "finished") and attempt.may_be_there:
            for status in RECEIPTS:
                for part in world.parts:
                    yield _receipt(world, state, key, part, status)
        if state.progress.phase is Phase.UNKNOWN:
            for status in (Status.DELIVERED, Status.FAILED):
                resolved = _resolved(world, state, key)
                decision = on_resolved(state.progress, world.route, *key, status, WHY, state.now)
                yield _checked(world, resolved, decision)
    if not state.progress.is_final:
        yield _timer(world, state)
    ttl = state.progress.ttl_ends_at
    if ttl is not None and state.now <= ttl:
        yield replace(state, now=ttl + timedelta(seconds=1))


def _outcome(world: World, state: State, key: Key, outcome: Outcome) -> State:
    def decide(progress: Progress) -> Decision:
        return on_outcome(progress, world.route, world.policy, *key, outcome, state.now)

    decision = decide(state.progress)
    _is_not_told_twice(decide(decision.progress))
    return _checked(world, state, decision)


def _receipt(world: World, state: State, key: Key, part: str, status: Status) -> State:
    reason = WHY if status is Status.FAILED else None

    def decide(progress: Progress) -> Decision:
        return on_receipt(progress, world.route, *key, part, status, reason, state.now, {}, state.now)

    decision = decide(state.progress)
    _is_not_told_twice(decide(decision.progress))
    return _checked(world, _resolved(world, state, key), decision)


def _timer(world: World, state: State) -> State:
    due = state.progress.next_due
    assert due is not None
    at = replace(state, now=max(state.now, due))
    key = (at.progress.step, at.progress.submission)
    attempt = at.by_key.get(key)
    decision = on_due(at.progress, world.route, world.policy, attempt.view if attempt else None, at.now)
    return _checked(world, at, decision)


def _silence(world: World, state: State) -> State:
    """The next deadline passes and nobody says anything. One that moved nothing is told again a minute later."""
    after = _timer(world, state)
    return replace(after, now=after.now + timedelta(seconds=60)) if _name(after) == _name(state) else after


def _take(state: State, decision: Decision) -> State:
    """The world after a decision was carried out, every new attempt with its slot."""
    attempts = state.by_key
    effects = decision.effects
    progress = decision.progress
    if effects.cancel is not None and attempts[effects.cancel].view.state == "planned":
        taken_back = attempts[effects.cancel]
        attempts[effects.cancel] = Attempt(replace(taken_back.view, state="cancelled"), resolved=True)
    if effects.redispatch is not None:
        again = attempts[effects.redispatch].view
        attempts[effects.redispatch] = Attempt(replace(again, republished=True, send_before=progress.claim_due_at))
    if effects.dispatch is not None:
        attempts[effects.dispatch] = Attempt(AttemptView("planned", send_before=progress.claim_due_at))
    told = state.told + tuple((_said(due), due.step) for due in effects.callbacks)
    return State(state.now, progress, tuple(sorted(attempts.items())), told)


def _checked(world: World, state: State, decision: Decision) -> State:
    """Take a decision that keeps every promise."""
    before, after = state.progress, decision.progress
    if decision.effects.dispatch is not None:
        _may_dispatch(world, state, decision)
    # A message that is not final waits for something.
    assert after.is_final or after.next_due is not None
    if before.is_final:
        assert after.is_final
        assert after.final_at == before.final_at
        assert decision.effects.dispatch is None
        assert decision.effects.redispatch is None
    if before.status in POSITIVE:
        assert after.status in POSITIVE
        assert not (before.status is Status.READ and after.status is Status.DELIVERED)
    if any(ledger.status in POSITIVE for ledger in after.ledger.steps.values()):
        # A real DELIVERED or READ outranks FAILED, whatever else is known.
        assert after.status in POSITIVE
    _tells_in_order(state, decision.effects.callbacks)
    if not before.ledger.of(before.step).submitted and decision.effects.cancel is not None:
        assert decision.effects.cancel in state.by_key
    return _take(state, decision)


def _may_dispatch(world: World, state: State, decision: Decision) -> None:
    before, after = state.progress, decision.progress
    assert decision.effects.dispatch is not None
    step_number, submission = decision.effects.dispatch
    # Never back to a channel that was left, never past the next one, each submission once.
    assert before.step <= step_number <= before.step + 1
    assert step_number < len(world.route.steps)
    assert submission == before.submission + 1
    # Never after the TTL, and never so that it could be claimed after it.
    if after.ttl_ends_at is not None:
        assert state.now < after.ttl_ends_at
        assert after.claim_due_at is not None
        assert after.claim_due_at <= after.ttl_ends_at
    # Never while an adapter has an attempt of which nothing is known. Once its time is up, as was asked for.
    for (of, _), attempt in state.attempts:
        if attempt.view.state == "claimed" and not attempt.resolved:
            assert attempt.view.claimed_at is not None
            assert state.now >= attempt.view.claimed_at + timedelta(seconds=ADAPTER_SECONDS)
            retried = world.route.steps[of].deduplicates and step_number == of
            assert retried or world.policy.on_unknown is OnUnknown.FAIL_OVER
    # Never where somebody has it, but where the step waited to be read.
    for of, ledger in before.ledger.steps.items():
        if ledger.status in POSITIVE:
            assert world.route.steps[of].until_read
            assert ledger.status is not Status.READ
            # It goes on once, and what it goes on to is not tried twice.
            assert (of, step_number) == (before.step, before.step + 1)


def _tells_in_order(state: State, callbacks: tuple[CallbackDue, ...]) -> None:
    told = list(state.told)
    for due in callbacks:
        said = _said(due)
        assert due.sequence == len(told) + 1
        assert (said, due.step) not in told, f"{said} is told twice of one channel"
        delivered = {of for what, of in told if what in POSITIVE}
        if said not in POSITIVE:
            # Nothing but deliveries is told after a delivery.
            assert not delivered
        if said == Status.DELIVERED:
            assert (Status.READ, due.step) not in told
        if said == Status.FAILED:
            assert Status.FAILED not in {what for what, _ in told}
        elif Status.FAILED in {what for what, _ in told}:
            assert said in POSITIVE
        if said == Status.QUEUED_ON_CHANNEL:
            assert ("SUBMIT", due.step) in told
        told.append((said, due.step))


def _is_not_told_twice(again: Decision) -> None:
    assert again.effects.callbacks == ()
    assert again.effects.dispatch is None


def _said(due: CallbackDue) -> str:
    return "SUBMIT" if due.trigger is Trigger.MESSAGE_SUBMIT else str(due.status)


def _with(state: State, key: Key, *, view: AttemptView | None = None, resolved: bool = False) -> State:
    attempts = state.by_key
    old = attempts[key]
    attempts[key] = replace(old, view=view or old.view, resolved=old.resolved or resolved)
    return replace(state, attempts=tuple(sorted(attempts.items())))


def _resolved(world: World, state: State, key: Key) -> State:
    """What is said of one attempt is said of all before it where the provider drops duplicates: it has one of them."""
    for other, _ in state.attempts:
        if other == key or (world.route.steps[key[0]].deduplicates and other[0] == key[0]):
            state = _with(state, other, resolved=True)
    return state


def _nowhere(state: State, key: Key) -> State:
    """No provider has this attempt: no receipt of it will come."""
    attempts = state.by_key
    attempts[key] = replace(attempts[key], may_be_there=False)
    return replace(state, attempts=tuple(sorted(attempts.items())))


_NOTHING: Final = Progress(Phase.SENDING, Status.QUEUED, T0, expires_at=T0)
_name = msgspec.json.Encoder().encode
