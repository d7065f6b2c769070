"""A message's timeline, told for people: when, what, why. Pure.

The same story on the command line (`switchboard timeline`) and over HTTP (`GET …/messages/{id}/timeline`).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from msgspec import Struct

from switchboard.reason import Reason
from switchboard.rules.route import Candidate
from switchboard.store.timeline import Moment
from switchboard.timeline import Entry, Kind

_WHAT: Final = {
    Kind.PLANNED: "planned",
    Kind.SUBMITTED: "submitted to the provider",
    Kind.OUTCOME: "outcome",
    Kind.RECEIPT: "receipt",
    Kind.DUE: "a deadline passed",
    Kind.ABANDONED: "attempt abandoned",
    Kind.RESOLVED: "unknown resolved by an operator",
    Kind.RECEIVED: "received from a person",
    Kind.DEAD_LETTER: "dead letter",
    Kind.CALLBACK: "callback posted",
}


class Line(Struct, frozen=True):
    """One line of the story. Holds no text and no identity of a person."""

    at: datetime
    what: str
    why: str
    #: What the line is made of; an exchange with a provider has the kind of its attempt.
    kind: Kind
    channel: str = ""
    #: From 1, as people count.
    step: int | None = None
    submission: int | None = None
    status: str = ""
    #: Why, in the API's words: what the fact said, else what the app is told.
    reason: Reason | None = None
    #: Of a plan: every channel that was looked at, where there was more than one to try.
    candidates: tuple[Candidate, ...] = ()


def tell(moments: Iterable[Moment]) -> list[Line]:
    """The lines of a timeline, in order of time; exchanges with the provider have lines of their own."""
    return sorted((line for moment in moments for line in _lines(moment)), key=lambda line: line.at)


def _lines(moment: Moment) -> Iterator[Line]:
    entry = moment.entry
    step = None if entry.step is None else entry.step + 1
    submission = entry.submission or None
    for exchange in entry.exchanges:
        why = _joined(exchange.answer, exchange.detail)
        yield Line(exchange.started_at, f"  {exchange.operation}", why, moment.kind, entry.channel, step, submission)
    yield Line(
        moment.at, _what(moment), _why(moment), moment.kind, entry.channel, step, submission, entry.status,
        _reason_of(entry), entry.candidates,
    )  # fmt: skip


def _what(moment: Moment) -> str:
    entry = moment.entry
    where = entry.channel
    if entry.step is not None and entry.submission:
        where = f"{where} step {entry.step + 1}, submission {entry.submission}".strip()
    return f"{_WHAT[moment.kind]} ({where})" if where else _WHAT[moment.kind]


def _why(moment: Moment) -> str:
    entry = moment.entry
    parts = [
        ", ".join(f"{candidate.channel} {candidate.verdict}" for candidate in entry.candidates),
        entry.note,
        entry.status,
        _reason(_reason_of(entry)),
    ]
    if moment.kind is Kind.CALLBACK:
        answer = str(entry.http_status) if entry.http_status else "no answer"
        parts += [f"{entry.endpoint} answered {answer}", f"try {entry.try_number}" if entry.try_number else ""]
    if entry.effects is not None:
        told = [callback.status or callback.trigger for callback in entry.effects.callbacks]
        parts += [f"tells {', '.join(map(str, told))}" if told else ""]
        parts += ["dispatches" if entry.effects.dispatch is not None else ""]
    return _joined(*parts)


def _reason_of(entry: Entry) -> Reason | None:
    told = () if entry.effects is None else entry.effects.callbacks
    return entry.reason or next((callback.reason for callback in told if callback.reason is not None), None)


def _reason(reason: Reason | None) -> str:
    return "" if reason is None else f"{reason.code}{f' ({reason.description})' if reason.description else ''}"


def _joined(*parts: str) -> str:
    return "; ".join(dict.fromkeys(part for part in parts if part))
