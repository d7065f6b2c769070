"""The ledger itself: a run that kept its promises passes, and each promise broken is found and named."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.faults.evidence import AttemptRow, EventRow, Evidence, MessageRow, Said, Sent
from tests.faults.ledger import account, callback_id, check

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, Rejected
from switchboard.ids import CallbackId, MessageId, lowest_at
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.progress import CallbackDue, Effects, Ledger
from switchboard.status import Status
from switchboard.store.timeline import Moment
from switchboard.timeline import Entry, Kind
from switchboard.trigger import Trigger
from switchboard_simulator.journal import Callback, Submission

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
FIRST, SECOND = (MessageId(lowest_at(NOW + timedelta(seconds=n))) for n in (0, 1))
MARKS = {FIRST: "n00000001-000001x", SECOND: "n00000001-000002x"}
WRITTEN = "n00000001-900001x"
WEBHOOK = "webhook"
PHONE, CHAT = ("SMS", "467600001"), ("TELEGRAM", "7000001")
TAKEN = Accepted(("p",))
DUES = (
    CallbackDue(Trigger.MESSAGE_SUBMIT, 1, 0, 1, NOW),
    CallbackDue(Trigger.MESSAGE_DELIVERY, 2, 0, 1, NOW, Status.QUEUED_ON_CHANNEL),
    CallbackDue(Trigger.MESSAGE_DELIVERY, 3, 0, 1, NOW, Status.DELIVERED),
)


def kept() -> Evidence:
    """Two messages to one person, delivered in order."""
    return Evidence(
        sent=[Sent(message_id=id, mark=MARKS[id], at=NOW, to=(PHONE, CHAT), told=frozenset({id})) for id in MARKS],
        said=[Said(mark=WRITTEN, channel="TELEGRAM", at=NOW)],
        submissions=[line(FIRST), line(SECOND)],
        callbacks=[*(arrived(id, due) for id in MARKS for due in DUES), heard()],
        messages={id: row(id) for id in MARKS},
        attempts=[attempt(id) for id in MARKS],
        timeline={id: moments(number, DUES) for number, id in enumerate(MARKS, 1)},
        events={key: event for id in MARKS for key, event in (recorded(id, due) for due in DUES)},
        webhook_ids=[WEBHOOK],
    )


def heard(event: str = "inbound") -> Callback:
    headers = {"webhook-id": event, "switchboard-trigger": Trigger.MESSAGE_INBOUND}
    return Callback(NOW, "app", "POST", headers, f'{{"text":"{WRITTEN}"}}', True, "valid", 200)


def line(id: MessageId, channel: str = "SMS", *, accepted: bool = True) -> Submission:
    return Submission(NOW, channel, "a", "submit_sm", dict((PHONE, CHAT))[channel], MARKS[id], accepted)


def row(id: MessageId, status: str = "DELIVERED", **fields: Any) -> MessageRow:
    made: dict[str, Any] = {
        "id": id,
        "app_id": "app",
        "phase": "FINAL",
        "status": status,
        "step": 0,
        "final": True,
        "high_priority": False,
        "reason": None,
        "ledger": Ledger(),
        "mark": MARKS[id],
    }
    return MessageRow(**(made | fields))


def attempt(id: MessageId, submission: int = 1, outcome: Outcome | None = TAKEN, **fields: Any) -> AttemptRow:
    made: dict[str, Any] = {
        "message_id": id,
        "step": 0,
        "submission": submission,
        "channel": "SMS",
        "identity": PHONE[1],
        "state": "finished",
        "claimed_at": NOW,
        "outcome": outcome,
    }
    return AttemptRow(**(made | fields))


def moments(number: int, dues: tuple[CallbackDue, ...], note: str = "") -> list[Moment]:
    planned = Moment(number, NOW, Kind.PLANNED, "accepted", Entry(note=note))
    return [planned, Moment(number + 100, NOW, Kind.OUTCOME, "outcome", Entry(effects=Effects(callbacks=dues)))]


def arrived(id: MessageId, due: CallbackDue, *, event: str = "", signature: str = "valid", twist: str = "") -> Callback:
    body: dict[str, Any] = {"message_id": id, "twist": twist}
    if due.status:
        identity = {"channel": "SMS"}
        body = {
            "message_delivery_report": {"message_id": id, "status": due.status, "channel_identity": identity} | body
        }
    headers = {"webhook-id": event or callback_id(id, due, WEBHOOK)}
    return Callback(NOW, "app", "POST", headers, msgspec.json.encode(body).decode(), True, signature, 200)


def recorded(id: MessageId, due: CallbackDue, **fields: Any) -> tuple[CallbackId, EventRow]:
    key = callback_id(id, due, WEBHOOK)
    made: dict[str, Any] = {
        "id": key,
        "webhook_id": WEBHOOK,
        "target": "t",
        "trigger": due.trigger,
        "stream": id,
        "sequence": due.sequence,
        "state": "delivered",
        "passed": False,
        "attempts": 1,
    }
    return key, EventRow(**(made | fields))


def without(items: Any, *gone: Any) -> list[Any]:
    return [item for item in items if item not in gone]


def told(evidence: Evidence, id: MessageId, *dues: CallbackDue) -> Evidence:
    """The same, with these callbacks raised for a message, and arrived."""
    others = [entry for entry in evidence.callbacks if id not in entry.body]
    return replace(
        evidence,
        callbacks=[*others, *(arrived(id, due) for due in dues)],
        timeline={**evidence.timeline, id: moments(1, dues)},
        events={**{k: v for k, v in evidence.events.items() if v.stream != id}, **dict(recorded(id, d) for d in dues)},
    )


FAILED = CallbackDue(Trigger.MESSAGE_DELIVERY, 4, 0, 1, NOW, Status.FAILED)
REJECTED = Rejected(Reason(ReasonCode.CHANNEL_REJECT))
BROKEN: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "a message that has no row": ("I1", lambda e: replace(
        e, messages={FIRST: e.messages[FIRST]}, callbacks=[c for c in e.callbacks if SECOND not in c.body],
        events={k: v for k, v in e.events.items() if v.stream == FIRST})),
    "a message that is not final": ("I1", lambda e: replace(
        e, messages={**e.messages, FIRST: row(FIRST, final=False, phase="SENDING")})),
    "a key that was told two ids": ("I1", lambda e: replace(
        e, sent=[replace(e.sent[0], told=frozenset({FIRST, SECOND})), e.sent[1]])),
    "an end nobody was told": ("I1", lambda e: told(e, FIRST, *DUES[:2])),
    "an attempt left planned": ("I1", lambda e: replace(
        e, attempts=[*e.attempts, attempt(FIRST, 2, None, state="planned", claimed_at=None)])),
    "a status that was not expected": ("I1", lambda e: replace(
        e, sent=[replace(e.sent[0], may_end=frozenset({"READ"})), e.sent[1]])),
    "a callback that never arrived": ("I2", lambda e: replace(e, callbacks=e.callbacks[1:], events={})),
    "a callback recorded as delivered that never arrived": ("I2", lambda e: replace(
        told(e, FIRST, *DUES), callbacks=e.callbacks[1:])),
    "a callback that still waits": ("I2", lambda e: replace(
        e, events={**e.events, **dict([recorded(FIRST, DUES[0], state="waiting")])})),
    "a word nobody heard": ("I2", lambda e: replace(e, callbacks=e.callbacks[:-1])),
    "a word heard twice": ("I4", lambda e: replace(e, callbacks=[*e.callbacks, heard("another")])),
    "a callback signed wrong": ("I2", lambda e: replace(
        e, callbacks=[*e.callbacks, arrived(FIRST, DUES[0], signature="invalid")])),
    "two first tries out of order": ("I3", lambda e: replace(e, submissions=[line(SECOND), line(FIRST)])),
    "callbacks out of order": ("I3", lambda e: replace(
        e, callbacks=[e.callbacks[1], e.callbacks[0], *e.callbacks[2:]])),
    "a status that falls": ("I3", lambda e: replace(
        told(e, FIRST, *DUES, FAILED), messages={**e.messages, FIRST: row(FIRST, "FAILED")})),
    "an attempt on the wire twice": ("I4", lambda e: replace(
        e, submissions=[*e.submissions, line(SECOND, accepted=False)])),
    "a message taken twice by two attempts": ("I4", lambda e: replace(
        e, submissions=[*e.submissions, line(SECOND)], attempts=[*e.attempts, attempt(SECOND, 2)])),
    "a message taken and recorded as refused": ("I4", lambda e: replace(
        e, attempts=[attempt(FIRST, outcome=REJECTED), e.attempts[1]])),
    "one event under two ids": ("I4", lambda e: replace(
        e, callbacks=[*e.callbacks, arrived(FIRST, DUES[2], event="another")])),
    "one id with two bodies": ("I4", lambda e: replace(
        e, callbacks=[*e.callbacks, arrived(FIRST, DUES[2], twist="other")])),
    "a lower channel tried though the higher one has it": ("I5", lambda e: replace(
        e, submissions=[*e.submissions, line(SECOND, "TELEGRAM")],
        attempts=[*e.attempts, attempt(SECOND, 2, step=1, channel="TELEGRAM", identity=CHAT[1])])),
    "a lower channel tried though nobody tried the higher one": ("I5", lambda e: replace(
        e, submissions=[line(FIRST), line(SECOND, "TELEGRAM")],
        attempts=[attempt(FIRST), attempt(SECOND, step=1, channel="TELEGRAM", identity=CHAT[1])])),
    "a higher channel tried after the switch": ("I5", lambda e: replace(
        e, submissions=[line(FIRST), line(SECOND, "TELEGRAM"), line(SECOND)],
        attempts=[*e.attempts, attempt(SECOND, 2, step=1, channel="TELEGRAM", identity=CHAT[1])])),
}  # fmt: skip


def test_promises_that_were_kept_are_not_complained_about() -> None:
    assert check(kept()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found_and_names_its_message(name: str) -> None:
    invariant, twist = BROKEN[name]
    evidence = twist(kept())

    found = check(evidence)

    assert invariant in {violation.invariant for violation in found}
    assert {violation.message_id for violation in found} <= {FIRST, SECOND, WRITTEN}
    assert found[0].message_id in account(evidence, found)


def test_a_callback_that_expired_after_a_real_try_is_no_loss() -> None:
    evidence = kept()
    lost = callback_id(FIRST, DUES[2], WEBHOOK)
    expired = dict([recorded(FIRST, DUES[2], state="expired", attempts=3)])

    assert check(replace(evidence, callbacks=without(evidence.callbacks, evidence.callbacks[2]),
                         events={**evidence.events, **expired})) == []  # fmt: skip
    assert lost in expired


def test_a_retry_after_a_failure_for_now_is_no_second_submission() -> None:
    evidence = kept()
    failed = attempt(FIRST, outcome=FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE)))

    assert check(replace(evidence, submissions=[line(FIRST, accepted=False), *evidence.submissions],
                         attempts=[failed, attempt(FIRST, 2), attempt(SECOND)])) == []  # fmt: skip


def test_an_unknown_may_end_as_failed() -> None:
    evidence = told(kept(), FIRST, replace(FAILED, sequence=1))
    unknown = Reason(ReasonCode.UNKNOWN)
    sent = [replace(evidence.sent[0], may_end=frozenset({"DELIVERED"})), evidence.sent[1]]

    attempts = [attempt(FIRST, outcome=None), attempt(SECOND)]
    messages = {**evidence.messages, FIRST: row(FIRST, "FAILED", reason=unknown)}

    assert check(replace(evidence, sent=sent, attempts=attempts, messages=messages)) == []
