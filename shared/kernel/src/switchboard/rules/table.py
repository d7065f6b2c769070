"""The truth table of `rules.facts` and `rules.deadlines`: every fact in every phase, and what follows. Pure.

Nothing here decides anything: each row asks the rules. docs/reference/failover.md is made of it.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.channel.outcome import Accepted, FailedForNow, PartlyAccepted, Rejected, Unknown
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.deadlines import on_due
from switchboard.rules.facts import on_abandoned, on_dead_letter, on_outcome, on_receipt, on_resolved, start
from switchboard.rules.progress import AttemptView, Decision, OnUnknown, Phase, Policy, Progress
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE, Status
from switchboard.trigger import Trigger

_NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_WAIT_SECONDS: Final = 60
_TTL_SECONDS: Final = 600
_LONG: Final = timedelta(days=4)
_REASON: Final = Reason(ReasonCode.CHANNEL_FAILURE, "")
_PATIENT: Final = Policy()
_TAKEN: Final = Accepted(("1",))
_PLANNED: Final = AttemptView("planned", send_before=_NOW + timedelta(seconds=30))
_CLAIMED: Final = AttemptView("claimed", claimed_at=_NOW, send_before=_NOW + timedelta(seconds=30))

#: A fact: what the rules say about it, for a message that is this far on this route.
Fact = Callable[[Progress, Route], Decision]


class Row(Struct, frozen=True):
    """One line of the table."""

    fact: str
    #: With another channel left, and on the last one.
    onward: str
    last: str


class Section(Struct, frozen=True):
    """One table of the page."""

    title: str
    words: str
    #: How the message came to where the facts meet it.
    given: Fact
    facts: tuple[tuple[str, Fact], ...]
    ttl_seconds: int | None = None
    #: The routes of the two columns. None: the usual ones.
    routes: tuple[Route, Route] | None = None


def truth_table() -> str:
    """The page, as Markdown."""
    return "\n".join(_page()) + "\n"


def rows(section: Section) -> list[Row]:
    """What follows each fact of a section."""
    onward, last = section.routes or (_ONWARD, _LAST)
    return [
        Row(fact, _follows(section, happens, onward), _follows(section, happens, last))
        for fact, happens in section.facts
    ]


def _page() -> Iterator[str]:
    yield "# What follows what"
    yield ""
    yield "Every fact about a message to a contact, and what the router makes of it."
    yield "The page is generated from the rules (`switchboard.rules.facts`, `.deadlines`); a test keeps it true."
    yield ""
    yield "Each cell says what the app is told, then what happens next."
    yield "*Nothing* means: it is recorded in the timeline, and that is all."
    for section in SECTIONS:
        yield from ("", f"## {section.title}", "", section.words, "")
        yield "| What happens | with another channel left | on the last channel |"
        yield "|---|---|---|"
        for row in rows(section):
            yield f"| {row.fact} | {row.onward} | {row.last} |"


def _follows(section: Section, happens: Fact, route: Route) -> str:
    before = _given(section, route)
    decision = happens(before, route)
    parts = list(_told(decision, route))
    after, effects = decision.progress, decision.effects
    if effects.cancel and after.status in POSITIVE:
        parts.append("what waits is not sent")
    if after.ledger.delivered_twice and not before.ledger.delivered_twice:
        parts.append("it counts as delivered twice")
    if effects.retract:
        parts.append("the channel is asked to take it back")
    elif effects.dispatch:
        step, _ = effects.dispatch
        parts.append("the next channel is tried" if step > before.step else "the same channel is tried again")
    elif effects.redispatch:
        parts.append("the attempt is published once more")
    elif after.is_final and not before.is_final:
        parts.append("the message ends")
    elif after.phase is not before.phase or after.phase is Phase.RETRYING:
        parts.append(_WAITS[after.phase])
    return ", then ".join(("; ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else (parts or ["nothing"])[0]


def _told(decision: Decision, route: Route) -> Iterator[str]:
    for due in decision.effects.callbacks:
        if due.trigger is Trigger.MESSAGE_SUBMIT:
            continue
        reason = f" ({due.reason.code})" if due.reason and due.status is not Status.SWITCHING_CHANNEL else ""
        yield f"{due.status}{reason}"


def _given(section: Section, route: Route) -> Progress:
    begun = start(route, _NOW, section.ttl_seconds, _NOW).progress
    return section.given(begun, route).progress


def _step(channel: str, wait_seconds: int | None) -> RouteStep:
    return RouteStep(
        ChannelIdentity(ChannelName(channel), ""),
        AccountKey(""),
        (Status.DELIVERED, Status.READ),
        wait_seconds=wait_seconds,
    )


_ONWARD: Final = Route((_step("RCS", _WAIT_SECONDS), _step("SMS", None)))
_LAST: Final = Route((_step("SMS", None),))
_FURTHER: Final = Route((_step("RCS", _WAIT_SECONDS), _step("WHATSAPP", _WAIT_SECONDS), _step("SMS", None)))
_UNTIL_READ: Final = Route((replace(_step("RCS", _WAIT_SECONDS), until_read=True), _step("SMS", None)))
_RETRACTABLE: Final = (
    Route(tuple(replace(step, can_retract=True) for step in _ONWARD.steps)),
    Route(tuple(replace(step, can_retract=True) for step in _LAST.steps)),
)
_SILENT: Final = "a channel that reports nothing takes it"

_WAITS: Final = {
    Phase.SENDING: "it waits to be claimed",
    Phase.CLAIMED: "it waits for the outcome",
    Phase.RETRYING: "it waits and the same channel is tried again",
    Phase.SUBMITTED: "it waits for receipts",
    Phase.UNKNOWN: "it waits for a receipt",
    Phase.FINAL: "the message ends",
}


def _outcome(outcome: object, policy: Policy = _PATIENT) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        return on_outcome(progress, route, policy, progress.step, progress.submission, outcome, _NOW)  # type: ignore[arg-type]

    return happens


def _silently(progress: Progress, route: Route) -> Decision:
    silent = Route(tuple(replace(step, receipts=()) for step in route.steps))
    return on_outcome(progress, silent, _PATIENT, progress.step, progress.submission, _TAKEN, _NOW)


def _receipt(status: Status, part: str = "1", reason: Reason | None = None) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        step, submission = progress.step, progress.submission
        return on_receipt(progress, route, step, submission, part, status, reason, _NOW, {}, _NOW)

    return happens


def _receipt_of_first(status: Status) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        return on_receipt(progress, route, 0, 1, "1", status, None, _NOW, {}, _NOW)

    return happens


def _due(attempt: AttemptView | None = None, policy: Policy = _PATIENT, *, after: timedelta = _LONG) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        return on_due(progress, route, policy, attempt, _NOW + after)

    return happens


def _abandoned(progress: Progress, route: Route) -> Decision:
    return on_abandoned(progress, route, _PLANNED, progress.step, progress.submission, _REASON, False, _NOW)


def _purged(progress: Progress, route: Route) -> Decision:
    return on_abandoned(progress, route, _PLANNED, progress.step, progress.submission, _REASON, True, _NOW)


def _resolved(status: Status) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        return on_resolved(progress, route, progress.step, progress.submission, status, _REASON, _NOW)

    return happens


def _dead_letter(progress: Progress, _: Route) -> Decision:
    return on_dead_letter(progress, _NOW)


def _nothing(progress: Progress, _: Route) -> Decision:
    return Decision(progress)


def _in_turn(*facts: Fact) -> Fact:
    def happens(progress: Progress, route: Route) -> Decision:
        decision = Decision(progress)
        for fact in facts:
            decision = fact(decision.progress, route)
        return decision

    return happens


_FAILED_RECEIPT: Final = _receipt(Status.FAILED, reason=Reason(ReasonCode.RECIPIENT_NOT_REACHABLE, ""))
_SILENCE: Final = _due(after=timedelta(seconds=_WAIT_SECONDS + 1))
_FAIL_OVER: Final = Policy(on_unknown=OnUnknown.FAIL_OVER)
_HALF: Final = _in_turn(_outcome(Accepted(("1", "2"))), _receipt(Status.DELIVERED))

SECTIONS: Final = (
    Section(
        "The outcome of an attempt",
        "A channel was asked to take the message.",
        _nothing,
        (
            ("accepted", _outcome(_TAKEN)),
            (_SILENT, _silently),
            ("rejected", _outcome(Rejected(Reason(ReasonCode.CHANNEL_REJECT, "")))),
            ("rejected: the message itself is wrong", _outcome(Rejected(_REASON, fails_message=True))),
            ("some parts taken, others refused", _outcome(PartlyAccepted(("1",), _REASON))),
            ("failed for now", _outcome(FailedForNow(_REASON))),
            ("throttled: counts no try", _outcome(FailedForNow(_REASON, throttled=True))),
            ("unknown", _outcome(Unknown(_REASON))),
            ("a receipt is faster: DELIVERED", _receipt(Status.DELIVERED)),
            ("a receipt is faster: FAILED", _FAILED_RECEIPT),
        ),
    ),
    Section(
        "Before an attempt is submitted",
        "It waits in a lane, or for an adapter to claim it.",
        _nothing,
        (
            ("it is not claimed within 30 s", _due(_PLANNED, after=timedelta(seconds=31))),
            ("nor after it was published again",
             _due(replace(_PLANNED, republished=True), after=timedelta(seconds=31))),
            ("no channel took it within its TTL, or 72 h", _due(_PLANNED)),
            ("claimed, and no outcome by its deadline", _due(_CLAIMED)),
            ("the gate of its lane is closed", _abandoned),
            ("an operator purges its lane", _purged),
            ("a record about it cannot be handled", _dead_letter),
        ),
    ),
    Section(
        "While the same channel is tried again",
        "It failed for now.",
        _outcome(FailedForNow(_REASON)),
        (
            ("the time of the next try comes", _due(after=timedelta(seconds=30))),
            ("its TTL, or 72 h, are up", _due()),
            ("the next try fails for now, within the retry duration",
             _in_turn(_due(after=timedelta(seconds=30)), _outcome(FailedForNow(_REASON)))),
        ),
    ),
    Section(
        "When the retry duration is over",
        "The last try failed for now.",
        _in_turn(
            _outcome(FailedForNow(_REASON)),
            lambda progress, _: Decision(replace(progress, first_failed_at=_NOW - timedelta(hours=1))),
            _due(after=timedelta(seconds=30)),
        ),
        (("it fails for now once more", _outcome(FailedForNow(_REASON))),),
    ),
    Section(
        "After a channel took it",
        "Receipts, and the timer of `delivery_report_based_fallback` where a further channel is left.",
        _outcome(_TAKEN),
        (
            ("DELIVERED", _receipt(Status.DELIVERED)),
            ("READ", _receipt(Status.READ)),
            ("FAILED", _FAILED_RECEIPT),
            ("no report within the waiting time", _due(after=timedelta(seconds=_WAIT_SECONDS + 1))),
            ("no report within the receipt horizon", _due()),
            ("a record about it cannot be handled", _dead_letter),
        ),
    ),
    Section(
        "After a channel took it, when its TTL is up",
        "A TTL ends failover, not the waiting for receipts.",
        _in_turn(
            _outcome(_TAKEN),
            lambda progress, _: Decision(replace(progress, ttl_ends_at=_NOW - timedelta(seconds=1))),
        ),
        (
            ("DELIVERED", _receipt(Status.DELIVERED)),
            ("FAILED", _FAILED_RECEIPT),
            ("no report within the waiting time", _due(after=timedelta(seconds=_WAIT_SECONDS + 1))),
        ),
        ttl_seconds=_TTL_SECONDS,
    ),
    Section(
        "The same on a channel that can take back what it has not delivered",
        "It is asked once, when the TTL is up.",
        _outcome(_TAKEN),
        (
            ("its TTL is up", _due(after=timedelta(seconds=_TTL_SECONDS))),
        ),
        ttl_seconds=_TTL_SECONDS,
        routes=_RETRACTABLE,
    ),
    Section(
        "After a switch",
        "The first channel took it and was silent; the second one's attempt waits, or was sent.",
        _in_turn(_outcome(_TAKEN), _SILENCE),
        (
            ("the first channel: DELIVERED, while the second waits", _receipt_of_first(Status.DELIVERED)),
            ("the first channel: READ, while the second waits", _receipt_of_first(Status.READ)),
            ("the first channel: FAILED", _receipt_of_first(Status.FAILED)),
            ("the first channel: DELIVERED, after the second took it",
             _in_turn(_outcome(_TAKEN), _receipt_of_first(Status.DELIVERED))),
        ),
        routes=(_FURTHER, _ONWARD),
    ),
    Section(
        "After a switch, once the first channel delivered it after all",
        "The second had taken it by then.",
        _in_turn(_outcome(_TAKEN), _SILENCE, _outcome(_TAKEN), _receipt_of_first(Status.DELIVERED)),
        (
            ("the first channel: READ", _receipt_of_first(Status.READ)),
            ("the second: DELIVERED", _receipt(Status.DELIVERED)),
            ("the second: FAILED", _FAILED_RECEIPT),
        ),
        routes=(_FURTHER, _ONWARD),
    ),
    Section(
        "After DELIVERED, where a step says `switch_after_delivered`",
        "Its wait is for READ.",
        _in_turn(_outcome(_TAKEN), _receipt(Status.DELIVERED)),
        (
            ("READ", _receipt(Status.READ)),
            ("nobody reads within the waiting time", _due(after=timedelta(seconds=_WAIT_SECONDS + 1))),
        ),
        routes=(_UNTIL_READ, _LAST),
    ),
    Section(
        "A message of two parts, one delivered",
        "What all parts come to is told as one.",
        _HALF,
        (
            ("the other is DELIVERED", _receipt(Status.DELIVERED, "2")),
            ("the other FAILED", _receipt(Status.FAILED, "2", _REASON)),
        ),
    ),
    Section(
        "While nobody knows whether a channel took it",
        "The wait is the step's waiting time, else 300 s; a channel that reports nothing has none.",
        _outcome(Unknown(_REASON)),
        (
            ("its acceptance turns up", _outcome(_TAKEN)),
            ("DELIVERED", _receipt(Status.DELIVERED)),
            ("FAILED", _FAILED_RECEIPT),
            ("the wait is over, `on_unknown: FAIL`", _due(after=timedelta(seconds=301))),
            ("the wait is over, `on_unknown: FAIL_OVER`", _due(policy=_FAIL_OVER, after=timedelta(seconds=301))),
            ("an operator says: DELIVERED", _resolved(Status.DELIVERED)),
            ("an operator says: FAILED", _resolved(Status.FAILED)),
        ),
    ),
    Section(
        "While nobody knows about the second of two parts",
        "The first was taken.",
        _outcome(Unknown(_REASON, ("1", "2"), parts=2)),
        (
            ("the first is DELIVERED", _receipt(Status.DELIVERED)),
            ("both are DELIVERED", _in_turn(_receipt(Status.DELIVERED), _receipt(Status.DELIVERED, "2"))),
            ("the first is DELIVERED, and the wait is over",
             _in_turn(_receipt(Status.DELIVERED), _due(after=timedelta(seconds=301)))),
        ),
    ),
    Section(
        "After DELIVERED",
        "Statuses never go backwards.",
        _in_turn(_outcome(_TAKEN), _receipt(Status.DELIVERED)),
        (
            ("DELIVERED again", _receipt(Status.DELIVERED)),
            ("READ", _receipt(Status.READ)),
            ("FAILED", _FAILED_RECEIPT),
        ),
    ),
    Section(
        "After FAILED",
        "Every channel took it and reported that it failed. One exception: what really arrived outranks a failure.",
        lambda progress, route: _in_turn(*(_outcome(_TAKEN), _FAILED_RECEIPT) * len(route.steps))(progress, route),
        (
            ("DELIVERED", _receipt(Status.DELIVERED)),
            ("FAILED", _FAILED_RECEIPT),
            ("a record about it cannot be handled", _dead_letter),
        ),
    ),
)  # fmt: skip
