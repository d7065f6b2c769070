"""Plays a scenario: facts in the order of a virtual clock, decided by the rules that decide in production. Pure."""

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Final, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from switchboard.channel.manifest import AccountOwner, Connection, CredentialSpec, Manifest
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.deadlines import on_due
from switchboard.rules.facts import on_abandoned, on_outcome, on_receipt, start
from switchboard.rules.moves import CLAIM_SECONDS
from switchboard.rules.progress import AttemptView, CallbackDue, Decision, Policy, Progress
from switchboard.rules.route import Candidate, Route, StepWish, plan_route
from switchboard.simulate.scenario import Answer, Attempt, Channel, Expectation, Receipt, Scenario
from switchboard.status import Status
from switchboard.trigger import Trigger

#: Facts a scenario may come to. One that goes on for ever is stopped.
MOST_FACTS: Final = 10_000
#: A deadline that moved nothing is looked at again after this, as the sweep of due messages does.
AGAIN: Final = timedelta(seconds=60)
_GATE_CLOSED: Final = Reason(ReasonCode.CHANNEL_FAILURE, "The channel takes no messages now and another one is left.")


class NeverEnds(Exception):
    """The scenario came to more facts than a message's life has."""


class Happened(Struct, frozen=True, omit_defaults=True):
    """One line of the timeline."""

    at_seconds: float
    #: What was heard: planned, outcome, receipt, deadline, gate closed.
    fact: str
    #: What the rules made of it.
    decision: str
    channel: str = ""
    status: str = ""
    reason: str = ""
    #: Callbacks raised by it, in order.
    tells: tuple[str, ...] = ()
    #: The channel that is tried next.
    dispatches: str = ""
    #: The channel that is asked to take the message back.
    takes_back: str = ""


class End(Struct, frozen=True):
    """How the message ended."""

    status: Status
    #: "" unless it failed.
    reason: str
    #: The channel the last callback spoke of, else the one tried last; "" if there was none.
    channel: str
    at_seconds: float
    delivered_twice: bool


class Played(Struct, frozen=True):
    """What became of a scenario."""

    candidates: tuple[Candidate, ...]
    timeline: tuple[Happened, ...]
    end: End

    @property
    def told(self) -> tuple[str, ...]:
        """All callbacks, in order."""
        return tuple(callback for line in self.timeline for callback in line.tells)

    def to_json(self) -> bytes:
        """The same bytes for the same scenario, every time."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def differences(self, expected: Expectation) -> list[str]:
        """What did not come as expected, in words."""
        found = {
            "status": (expected.status, self.end.status),
            "channel": (expected.channel, self.end.channel),
            "reason": (expected.reason, self.end.reason),
            "told": (expected.told, self.told),
        }
        return [
            f"{name}: expected {_words(wanted)}, came to {_words(came)}"
            for name, (wanted, came) in found.items()
            if wanted is not None and wanted != came
        ]


def play(scenario: Scenario) -> Played:
    """Run a scenario to its end. Raises NeverEnds."""
    return _Play(scenario).run()


class _Play:
    """The message, the attempts, and what is still to come."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._began: datetime = scenario.starts_at
        self._route = _route(scenario)
        self._policy = Policy(scenario.message.retry_seconds, scenario.message.on_unknown)
        self._channels = {channel.channel: channel for channel in scenario.channels}
        self._coming: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._number = count()
        self._attempts: dict[tuple[int, int], AttemptView] = {}
        self._lines: list[Happened] = []
        self._last_told = ""
        self._ended_at = self._began
        self._timer: datetime | None = None
        self._progress: Progress

    def run(self) -> Played:
        message = self._scenario.message
        self._take("planned", start(self._route, self._began, message.ttl_seconds, self._began), self._began)
        heard = 0
        while self._coming:
            heard += 1
            if heard > MOST_FACTS:
                raise NeverEnds(f"more than {MOST_FACTS} facts; does a provider fail for now without end?")
            at, _, happen = heapq.heappop(self._coming)
            happen(at)
        return Played(self._route.candidates, tuple(self._lines), self._end())

    def _end(self) -> End:
        progress = self._progress
        return End(
            status=progress.status,
            reason=progress.reason.code if progress.reason is not None and progress.status is Status.FAILED else "",
            channel=self._last_told or self._channel(progress.step),
            at_seconds=self._seconds(self._ended_at),
            delivered_twice=progress.ledger.delivered_twice,
        )

    # -- what happens

    def _later(self, at: datetime, happen: Callable[[datetime], None]) -> None:
        heapq.heappush(self._coming, (at, next(self._number), happen))

    def _slot(self, step: int, submission: int, script: Attempt, at: datetime) -> None:
        """The attempt leaves the line, and an adapter takes it."""
        attempt = self._attempts[step, submission]
        if attempt.state != "planned":
            return
        if script.answer is Answer.UNCLAIMED:
            send_before = at + timedelta(seconds=CLAIM_SECONDS)
            self._attempts[step, submission] = replace(attempt, send_before=send_before)
            self._progress = replace(self._progress, claim_due_at=send_before)
            self._wind(at)
            return
        self._attempts[step, submission] = replace(attempt, state="claimed", claimed_at=at, send_before=at)
        self._progress = replace(self._progress, claim_due_at=at + timedelta(seconds=CLAIM_SECONDS))
        self._wind(at)
        for receipt in script.receipts:
            self._later(
                at + timedelta(seconds=receipt.after_seconds),
                lambda when, receipt=receipt: self._receipt(step, submission, receipt, when),  # type: ignore[misc]
            )
        if script.answer is not Answer.CRASHED:
            answered = at + timedelta(seconds=script.takes_seconds)
            self._later(answered, lambda when: self._outcome(step, submission, script, when))

    def _outcome(self, step: int, submission: int, script: Attempt, at: datetime) -> None:
        outcome = _outcome(step, submission, script)
        attempt = self._attempts[step, submission]
        self._attempts[step, submission] = replace(attempt, state="finished")
        decision = on_outcome(self._progress, self._route, self._policy, step, submission, outcome, at)
        self._take("outcome", decision, at, step, script.answer.value, getattr(outcome, "reason", None))

    def _receipt(self, step: int, submission: int, receipt: Receipt, at: datetime) -> None:
        status = Status(receipt.status)
        reason = Reason(receipt.reason) if status is Status.FAILED else None
        part = _part(step, submission, receipt.part)
        decision = on_receipt(self._progress, self._route, step, submission, part, status, reason, at, {}, at)
        self._take("receipt", decision, at, step, status, reason)

    def _gate_closes(self, step: int, submission: int, at: datetime) -> None:
        if step + 1 >= len(self._route.steps):
            return
        view = self._attempts[step, submission]
        decision = on_abandoned(self._progress, self._route, view, step, submission, _GATE_CLOSED, False, at)
        self._take("gate closed", decision, at, step, reason=_GATE_CLOSED)

    def _deadline(self, due: datetime, at: datetime) -> None:
        if self._timer != due or self._progress.is_final:
            return
        self._timer = None
        progress = self._progress
        attempt = self._attempts.get((progress.step, progress.submission))
        decision = on_due(progress, self._route, self._policy, attempt, at)
        if decision.effects or decision.progress.is_final:
            self._take("deadline", decision, at, progress.step)
            return
        # It moved nothing that anybody should hear of.
        self._progress = decision.progress
        self._wind(at)

    # -- what follows

    def _take(
        self, fact: str, decision: Decision, at: datetime, step: int | None = None, status: str = "",
        reason: Reason | None = None,
    ) -> None:  # fmt: skip
        was_final = bool(self._lines) and self._progress.is_final
        self._progress = decision.progress
        effects = decision.effects
        if effects.callbacks:
            self._last_told = self._channel(effects.callbacks[-1].step)
        if not was_final and self._progress.is_final:
            self._ended_at = at
        self._lines.append(
            Happened(
                at_seconds=self._seconds(at),
                fact=fact,
                decision=decision.note,
                channel=self._channel(self._progress.step if step is None else step),
                status=status,
                reason="" if reason is None else reason.code,
                tells=tuple(self._told(due) for due in effects.callbacks),
                dispatches="" if effects.dispatch is None else self._channel(effects.dispatch[0]),
                takes_back="" if effects.retract is None else self._channel(effects.retract[0]),
            )
        )
        if effects.cancel is not None and self._attempts[effects.cancel].state == "planned":
            self._attempts[effects.cancel] = replace(self._attempts[effects.cancel], state="cancelled")
        if effects.redispatch is not None:
            again = replace(
                self._attempts[effects.redispatch], republished=True, send_before=self._progress.claim_due_at
            )
            self._attempts[effects.redispatch] = again
        if effects.dispatch is not None:
            self._dispatch(*effects.dispatch, at)
        self._wind(at)

    def _dispatch(self, step: int, submission: int, at: datetime) -> None:
        """Plan one submission: its place in line, then what its script says."""
        script = self._script(step)
        self._attempts[step, submission] = AttemptView("planned")
        # It has no deadline of its own while it waits for its slot.
        self._progress = replace(self._progress, claim_due_at=None)
        if script.gate_closes_after_seconds is not None:
            closes = at + timedelta(seconds=script.gate_closes_after_seconds)
            self._later(closes, lambda when: self._gate_closes(step, submission, when))
        leaves = at + timedelta(seconds=script.waits_seconds)
        self._later(leaves, lambda when: self._slot(step, submission, script, when))

    def _wind(self, at: datetime) -> None:
        """Set the timer to the deadline that applies now."""
        due = self._progress.next_due
        if due is None or due == self._timer:
            return
        self._timer = due
        fires = due if due > at else at + AGAIN
        self._later(fires, lambda when: self._deadline(due, when))

    # -- words

    def _script(self, step: int) -> Attempt:
        attempts = self._channels[self._route.steps[step].channel].attempts
        earlier = sum(of == step for of, _ in self._attempts)
        return attempts[min(earlier, len(attempts) - 1)]

    def _channel(self, step: int) -> str:
        return self._route.steps[step].channel if step < len(self._route.steps) else ""

    def _told(self, due: CallbackDue) -> str:
        what = "SUBMIT" if due.trigger is Trigger.MESSAGE_SUBMIT else str(due.status)
        return f"{what} {self._channel(due.step)}".strip()

    def _seconds(self, at: datetime) -> float:
        return round((at - self._began).total_seconds(), 6)


def _route(scenario: Scenario) -> Route:
    identities = [
        ChannelIdentity(ChannelName(channel.channel), "someone")
        for channel in scenario.channels
        if channel.has_identity
    ]
    message = scenario.message
    return plan_route(
        identities,
        [ChannelName(channel.channel) for channel in scenario.channels],
        {ChannelName(c.channel): AccountKey(f"account:{c.channel}") for c in scenario.channels if c.configured},
        {ChannelName(channel.channel): _manifest(channel) for channel in scenario.channels},
        message.fallback_wait_seconds,
        [
            StepWish(ChannelName(step.channel), step.success, step.wait_seconds, step.switch_after_delivered)
            for step in message.channel_steps
        ],
    )


def _manifest(channel: Channel) -> Manifest:
    """The facts of a channel that need not be installed."""
    return Manifest(
        channel=ChannelName(channel.channel),
        title=channel.channel,
        owner=AccountOwner.APP,
        connection=Connection.REQUEST,
        credentials=CredentialSpec("", ()),
        normal_identity=str,
        receipts=channel.receipts,
        horizon_seconds=channel.horizon_seconds,
        deduplicates=channel.deduplicates,
        can_retract=channel.can_retract,
        send_timeout_seconds=channel.send_timeout_seconds,
        content={},
    )


def _outcome(step: int, submission: int, script: Attempt) -> Outcome:
    ids = tuple(_part(step, submission, part + 1) for part in range(script.parts))
    reason = Reason(script.reason)
    match script.answer:
        case Answer.ACCEPTED:
            return Accepted(ids)
        case Answer.PARTLY_ACCEPTED:
            return PartlyAccepted(ids[:-1], reason)
        case Answer.REJECTED:
            return Rejected(reason, script.fails_message)
        case Answer.FAILED_FOR_NOW:
            return FailedForNow(reason, script.retry_after_seconds, script.throttled)
        case Answer.UNKNOWN:
            return Unknown(reason, parts=script.parts)
        case Answer.CRASHED | Answer.UNCLAIMED:
            raise AssertionError("there is no outcome without an adapter")
        case _:
            assert_never(script.answer)


def _part(step: int, submission: int, part: int) -> str:
    return f"{step}.{submission}.{part}"


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
