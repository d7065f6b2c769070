"""The ledger: invariants I1 to I5 of DESIGN 11, checked over the evidence of a run that has come to rest. Pure.

Each check yields a `Violation` that names its message; `account` tells that message's whole story beside it.
I6 (memory, connections, lag) is about processes: see `baseline.py`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Final

import msgspec
from msgspec import Struct
from tests.faults.evidence import AttemptRow, Evidence, MessageRow, Sent, event_of

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.ids import CallbackId, MessageId, derive
from switchboard.reason import ReasonCode
from switchboard.rules.progress import CallbackDue
from switchboard.status import POSITIVE, RANK, Status
from switchboard_simulator.journal import Submission

_ENDS: Final = frozenset({Status.DELIVERED, Status.READ, Status.FAILED})
#: A message whose channel reports nothing more ends with this.
_SUBMITTED: Final = Status.QUEUED_ON_CHANNEL
_ULID: Final = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
#: What the timeline says where a channel was left although it had the message.
_LEFT_IN_VAIN: Final = ("no report in time", "failed receipt", "stayed unknown")
#: What it says where a channel was left before anything was planned on it.
_NOT_ENTERED: Final = ("gate closed",)


class Violation(Struct, frozen=True):
    """One broken promise."""

    invariant: str
    message_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.message_id}: {self.what}"


def check(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong, in the order of the invariants."""
    return [
        *_one_end(evidence),
        *_every_callback_arrived(evidence),
        *_every_word_arrived(evidence),
        *_in_order(evidence),
        *_submitted_once(evidence),
        *_channels_in_turn(evidence),
    ]


# -- I1


def _one_end(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        if len(sent.told) > 1:
            yield Violation("I1", sent.message_id, f"one key was told several ids: {', '.join(sorted(sent.told))}")
        row = evidence.messages.get(sent.message_id)
        if row is None:
            yield Violation("I1", sent.message_id, "lost: a 2xx was given and there is no row")
        else:
            yield from _ends_as_expected(evidence, sent, row)
    for row in evidence.messages.values():
        if not row.final:
            yield Violation("I1", row.id, f"not final: phase {row.phase}, status {row.status}")
        elif row.status not in _ENDS | {_SUBMITTED}:
            yield Violation("I1", row.id, f"final with status {row.status}")
        yield from _told_one_end(evidence, row)
        for attempt in evidence.tried.get(row.id, ()):
            if attempt.state == "planned":
                yield Violation("I1", row.id, f"attempt {attempt.step}.{attempt.submission} is still planned")


def _ends_as_expected(evidence: Evidence, sent: Sent, row: MessageRow) -> Iterator[Violation]:
    if not sent.may_end or row.status in sent.may_end or not row.final:
        return
    if row.status == Status.FAILED and was_unknown(evidence, row.id):
        return
    reason = f" ({row.reason.code}: {row.reason.description})" if row.reason else ""
    yield Violation("I1", row.id, f"ended {row.status}{reason}, expected {', '.join(sorted(sent.may_end))}")


def _told_one_end(evidence: Evidence, row: MessageRow) -> Iterator[Violation]:
    """The ends that were raised: FAILED or DELIVERED once; READ after DELIVERED, DELIVERED after FAILED."""
    ends = [due.status for due in raised(evidence, row.id) if due.status in _ENDS]
    if len(ends) != len(set(ends)):
        yield Violation("I1", row.id, f"an end was raised twice: {', '.join(map(str, ends))}")
    if ends and row.final and row.status != ends[-1]:
        yield Violation("I1", row.id, f"ended {row.status}, but the last end told was {ends[-1]}")
    if row.final and row.status in _ENDS and not ends:
        yield Violation("I1", row.id, f"ended {row.status}, and that was never told")


# -- I2


def _every_callback_arrived(evidence: Evidence) -> Iterator[Violation]:
    for message_id in evidence.messages:
        for due in raised(evidence, message_id):
            for webhook_id in evidence.webhook_ids:
                event = callback_id(message_id, due, webhook_id)
                if event not in evidence.taken and not _expired(evidence, event):
                    said = f"{due.trigger} {due.status or ''} (number {due.sequence})"
                    yield Violation("I2", message_id, f"callback {event} never arrived: {said}")
    for event, row in evidence.events.items():
        if row.state == "waiting":
            yield Violation("I2", row.stream, f"callback {event} is still waiting after {row.attempts} tries")
        if row.state == "delivered" and event not in evidence.taken:
            yield Violation("I2", row.stream, f"callback {event} is recorded as delivered and was never taken")
    for line in evidence.callbacks:
        if line.signature != "valid":
            event = event_of(line)
            yield Violation("I2", _message_of(evidence, event), f"callback {event}: signature {line.signature}")


def _every_word_arrived(evidence: Evidence) -> Iterator[Violation]:
    """What people wrote is told; once, where the provider gives it an id."""
    for said in evidence.said:
        events = evidence.heard.get(said.mark, set())
        if not events:
            yield Violation("I2", said.mark, f"a person wrote it on {said.channel} at {said.at:%H:%M:%S}, never heard")
        elif len(events) > 1 and said.channel != "SMS":
            yield Violation("I4", said.mark, f"a person wrote it once, heard under {len(events)} ids")


def _expired(evidence: Evidence, event: CallbackId) -> bool:
    row = evidence.events.get(event)
    return row is not None and row.state == "expired" and row.attempts > 0


# -- I3


def _in_order(evidence: Evidence) -> Iterator[Violation]:
    yield from _submitted_in_order(evidence)
    yield from _called_back_in_order(evidence)
    yield from _statuses_only_rise(evidence)


def _submitted_in_order(evidence: Evidence) -> Iterator[Violation]:
    """First tries to one recipient on one channel, of equal priority, in the order in which they were planned."""
    lines: dict[tuple[str, str, bool], list[tuple[int, int, MessageId]]] = defaultdict(list)
    for message_id, row in evidence.messages.items():
        planned = evidence.timeline.get(message_id, ())
        seen = evidence.submitted.get(message_id, ())
        first = [attempt for attempt in evidence.tried.get(message_id, ()) if attempt.claimed_at is not None]
        # With several tries nothing on the wire says which of them a line was.
        if not planned or not seen or len(first) != 1 or (first[0].step, first[0].submission) != (0, 1):
            continue
        key = (first[0].channel, first[0].identity, row.high_priority)
        lines[key].append((planned[0].number, seen[0][0], message_id))
    for (channel, _, _), entries in lines.items():
        for (_, before, first_id), (_, after, message_id) in pairwise(sorted(entries)):
            if after < before:
                yield Violation("I3", message_id, f"submitted on {channel} before {first_id}, which was planned first")


def _called_back_in_order(evidence: Evidence) -> Iterator[Violation]:
    """Per webhook and message by sequence, except past a head that was passed."""
    streams: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for event, (place, _) in evidence.taken.items():
        row = evidence.events.get(event)
        if row is not None and not row.passed:
            streams[row.webhook_id or row.target, row.stream].append((row.sequence, place))
    for (_, stream), entries in streams.items():
        for (first, before), (second, after) in pairwise(sorted(entries)):
            if after < before:
                yield Violation("I3", stream, f"callback number {second} was taken before number {first}")


def _statuses_only_rise(evidence: Evidence) -> Iterator[Violation]:
    for message_id in evidence.messages:
        reached: dict[int, Status] = {}
        ended = False
        for due in sorted(raised(evidence, message_id), key=lambda due: due.sequence):
            if due.status is None:
                continue
            before = reached.get(due.step, Status.QUEUED)
            if not _may_follow(before, due.status) or (ended and due.status not in POSITIVE):
                yield Violation("I3", message_id, f"{due.status} was told after {before} of step {due.step}")
            reached[due.step] = due.status
            ended = ended or due.status in _ENDS


def _may_follow(before: Status, after: Status) -> bool:
    if before in (Status.FAILED, Status.SWITCHING_CHANNEL):
        return after in POSITIVE
    if after in (Status.FAILED, Status.SWITCHING_CHANNEL):
        return before not in POSITIVE
    return RANK[after] > RANK[before]


# -- I4


def _submitted_once(evidence: Evidence) -> Iterator[Violation]:
    for message_id, seen in evidence.submitted.items():
        on_wire: dict[tuple[str, str, str], list[Submission]] = defaultdict(list)
        for _, line in seen:
            on_wire[line.channel, line.recipient, line.operation].append(line)
        for (channel, _, operation), lines in on_wire.items():
            claimed = [a for a in evidence.tried.get(message_id, ()) if a.channel == channel and a.claimed_at]
            if len(lines) > len(claimed):
                yield Violation("I4", message_id, f"{operation}: {len(lines)} on the wire, {len(claimed)} claimed")
            if sum(line.accepted for line in lines) > 1:
                yield Violation("I4", message_id, f"{operation}: taken {sum(line.accepted for line in lines)} times")
        yield from _what_was_taken_is_known(evidence, message_id)
    yield from _one_event_one_id(evidence)


def _what_was_taken_is_known(evidence: Evidence, message_id: MessageId) -> Iterator[Violation]:
    """What a provider took is recorded as accepted, or as unknown; never as nothing."""
    for channel in {line.channel for _, line in evidence.submitted[message_id] if line.accepted}:
        attempts = [a for a in evidence.tried.get(message_id, ()) if a.channel == channel and a.claimed_at]
        if not attempts:
            yield Violation("I4", message_id, f"{channel} took it and no attempt was ever claimed")
        elif not any(_admits(attempt.outcome) for attempt in attempts) and not was_unknown(evidence, message_id):
            said = ", ".join(_name(attempt.outcome) for attempt in attempts)
            yield Violation("I4", message_id, f"{channel} took it; recorded is: {said}")


def _admits(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Accepted | PartlyAccepted | Unknown)


def _one_event_one_id(evidence: Evidence) -> Iterator[Violation]:
    """A callback that comes again has its id and its body again."""
    bodies: dict[CallbackId, str] = {}
    ids: dict[tuple[str, str, str, str], set[CallbackId]] = defaultdict(set)
    for line in evidence.callbacks:
        event = event_of(line)
        if bodies.setdefault(event, line.body) != line.body:
            yield Violation("I4", _message_of(evidence, event), f"callback {event} came with two bodies")
        report = msgspec.json.decode(line.body).get("message_delivery_report")
        if report is not None:
            channel = report["channel_identity"]["channel"]
            ids[line.receiver, report["message_id"], channel, report["status"]].add(event)
    for (_, message_id, channel, status), events in ids.items():
        if len(events) > 1:
            yield Violation("I4", message_id, f"{status} of {channel} came under {len(events)} ids")


# -- I5


def _channels_in_turn(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        seen = evidence.submitted.get(sent.message_id, ())
        order = [channel for channel, _ in sent.to]
        for _, line in seen:
            if line.channel not in order:
                yield Violation("I5", sent.message_id, f"submitted on {line.channel}, which nobody asked for")
        places = [(place, order.index(line.channel)) for place, line in seen if line.channel in order]
        for (_, before), (_, after) in pairwise(places):
            if after < before:
                yield Violation("I5", sent.message_id, f"{order[after]} was tried after {order[before]}")
        for step in range(1, max((step for _, step in places), default=0) + 1):
            if not _was_left(evidence, sent.message_id, step - 1):
                yield Violation("I5", sent.message_id, f"{order[step]} was tried though {order[step - 1]} had it")


def _was_left(evidence: Evidence, message_id: MessageId, step: int) -> bool:
    """Whether a step had failed, timed out or was closed when the next one was tried."""
    attempts = [attempt for attempt in evidence.tried.get(message_id, ()) if attempt.step == step]
    if attempts and (attempts[-1].state == "cancelled" or isinstance(attempts[-1].outcome, Rejected | FailedForNow)):
        return True
    notes = [moment.entry.note for moment in evidence.timeline.get(message_id, ())]
    return any(left in note for note in notes for left in (_LEFT_IN_VAIN if attempts else _NOT_ENTERED))


# -- what the evidence says


def raised(evidence: Evidence, message_id: MessageId) -> list[CallbackDue]:
    """Every callback that was decided about a message, in the order of its timeline."""
    moments = evidence.timeline.get(message_id, ())
    return [due for moment in moments if moment.entry.effects for due in moment.entry.effects.callbacks]


def callback_id(message_id: MessageId, due: CallbackDue, webhook_id: str) -> CallbackId:
    """The id that a callback has by its causes (DESIGN 5), made here anew and not asked of the router."""
    causes = (due.step, due.submission, due.status or "")
    return CallbackId(derive(message_id, "callback", due.trigger, *causes, webhook_id))


def was_unknown(evidence: Evidence, message_id: MessageId) -> bool:
    """Whether a message had an attempt of which nobody knows what became of it, and that is recorded."""
    if any(isinstance(attempt.outcome, Unknown) for attempt in evidence.tried.get(message_id, ())):
        return True
    row = evidence.messages.get(message_id)
    if row is not None and row.reason is not None and row.reason.code is ReasonCode.UNKNOWN:
        return True
    return any("unknown" in moment.entry.note for moment in evidence.timeline.get(message_id, ()))


def _name(outcome: Outcome | None) -> str:
    return "nothing" if outcome is None else type(outcome).__name__


def _message_of(evidence: Evidence, event: CallbackId) -> str:
    row = evidence.events.get(event)
    return row.stream if row is not None else str(event)


# -- telling


def account(evidence: Evidence, violations: Iterable[Violation], *, most: int = 5) -> str:
    """What is wrong, and the whole story of the first messages it is wrong with."""
    violations = list(violations)
    lines = [f"{len(violations)} violations", *map(str, violations[:40])]
    concerned = [id for violation in violations for id in (violation.message_id, *_ULID.findall(violation.what))]
    for message_id in list(dict.fromkeys(concerned))[:most]:
        lines += ["", message_id, *story(evidence, MessageId(message_id))]
    return "\n".join(lines)


def story(evidence: Evidence, message_id: MessageId) -> list[str]:
    """Everything known about one message, by time."""
    told: list[tuple[datetime, str]] = []
    for sent in evidence.sent:
        if sent.message_id == message_id:
            told.append((sent.at, f"2xx given; to {', '.join(channel for channel, _ in sent.to)}"))
    for place, line in evidence.submitted.get(message_id, ()):
        said = "taken" if line.accepted else "not taken"
        told.append((line.at, f"provider log {place}: {line.operation} {said}, {line.answer} {line.fault}"))
    for moment in evidence.timeline.get(message_id, ()):
        effects = msgspec.json.encode(moment.entry.effects).decode() if moment.entry.effects else "nothing"
        what = f"timeline {moment.number}: {moment.kind} {moment.cause}: {moment.entry.note} -> {effects}"
        told.append((moment.at, what))
    for place, got in enumerate(evidence.callbacks):
        if message_id in got.body:
            trigger = f"{got.headers.get('switchboard-trigger')} number {got.headers.get('switchboard-sequence')}"
            told.append((got.at, f"receiver log {place}: {event_of(got)} {trigger}, answered {got.status}"))
    lines = [f"  {at:%H:%M:%S.%f} {what}" for at, what in sorted(told, key=lambda entry: entry[0])]
    if (row := evidence.messages.get(message_id)) is not None:
        lines.append(f"  row: {row.phase} {row.status} step {row.step}, final {row.final}")
    return lines + [f"  attempt {_attempt(attempt)}" for attempt in evidence.tried.get(message_id, ())]


def _attempt(attempt: AttemptRow) -> str:
    said = f"{attempt.step}.{attempt.submission} {attempt.channel} {attempt.state}"
    return f"{said}, claimed {attempt.claimed_at or 'never'}, outcome {_name(attempt.outcome)}"
