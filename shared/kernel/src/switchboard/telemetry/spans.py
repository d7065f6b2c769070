"""A message's timeline as the spans of one trace. Pure; holds no text, no identity and no secret.

Messaging semantic conventions name the attributes. Spans belong to the service that did the work, so that Jaeger draws
the life of a message over the services it went through.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from switchboard.channel.contract import Exchange
from switchboard.ids import MessageId, trace_id_of
from switchboard.status import Status as MessageStatus
from switchboard.store.timeline import Moment
from switchboard.timeline import Kind

_SCOPE: Final = InstrumentationScope("switchboard")
_RESOURCES: Final = {
    name: Resource({"service.name": name}) for name in ("ingress", "router", "channel-adapter", "callback-delivery")
}
_NANOSECONDS: Final = 1_000_000_000


class Life(Struct, frozen=True):
    """What of a message's row its trace shows."""

    id: MessageId
    app_id: str
    accepted_at: datetime
    status: str
    final_at: datetime | None = None
    reason_code: str = ""


def spans_of(life: Life, moments: Sequence[Moment]) -> list[ReadableSpan]:
    """All spans of a message's trace, its root first. The same life gives the same spans every time."""
    last = max([moment.at for moment in moments], default=life.accepted_at)
    root = _Root(life, max(life.final_at or last, last))
    spans = [root.span(moments), root.child("accept", "ingress", life.accepted_at, life.accepted_at, "accept")]
    for moment in moments:
        spans += _spans_of_moment(root, moment)
    return spans


class _Root:
    """The span that all others hang from."""

    def __init__(self, life: Life, ended_at: datetime) -> None:
        self.life = life
        self.ended_at = ended_at
        self.trace_id = trace_id_of(life.id)
        self.context = self._context("message")

    def span(self, moments: Sequence[Moment]) -> ReadableSpan:
        life = self.life
        failed = life.status == MessageStatus.FAILED
        attributes = {
            "messaging.system": "switchboard",
            "messaging.operation.name": "send",
            "messaging.message.id": life.id,
            "switchboard.app_id": life.app_id,
            "switchboard.status": life.status,
        }
        if life.reason_code:
            attributes["error.type"] = life.reason_code
        return ReadableSpan(
            name="message",
            context=self.context,
            resource=_RESOURCES["router"],
            attributes=attributes,
            events=[_event(moment) for moment in moments if moment.kind in _DECISIONS],
            links=list(_links(moments)),
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, life.reason_code) if failed else Status(StatusCode.UNSET),
            start_time=_nanoseconds(life.accepted_at),
            end_time=_nanoseconds(self.ended_at),
            instrumentation_scope=_SCOPE,
        )

    def child(
        self,
        name: str,
        service: str,
        started_at: datetime,
        ended_at: datetime,
        event_id: str,
        *,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, str | int] | None = None,
        error: str = "",
    ) -> ReadableSpan:
        """One span below the root (or below `parent`), named by the event it stands for."""
        return ReadableSpan(
            name=name,
            context=self._context(event_id),
            parent=parent or self.context,
            resource=_RESOURCES[service],
            attributes=attributes or {},
            kind=kind,
            status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
            start_time=_nanoseconds(started_at),
            end_time=_nanoseconds(max(started_at, ended_at)),
            instrumentation_scope=_SCOPE,
        )

    def _context(self, event_id: str) -> SpanContext:
        digest = hashlib.blake2b(f"{self.life.id}/{event_id}".encode(), digest_size=8).digest()
        span_id = int.from_bytes(digest, "big") or 1
        return SpanContext(self.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


#: What the router decided: events on the root. The others are spans of their own.
_DECISIONS: Final = frozenset({Kind.OUTCOME, Kind.DUE, Kind.ABANDONED, Kind.RESOLVED, Kind.DEAD_LETTER})


def _spans_of_moment(root: _Root, moment: Moment) -> list[ReadableSpan]:
    entry = moment.entry
    match moment.kind:
        case Kind.PLANNED | Kind.RECEIVED:
            name = "plan" if moment.kind is Kind.PLANNED else "receive"
            return [root.child(name, "router", moment.at, moment.at, moment.cause, attributes={"note": entry.note})]
        case Kind.SUBMITTED:
            return _attempt_spans(root, moment)
        case Kind.RECEIPT:
            failed = entry.reason.code if entry.reason and entry.status == MessageStatus.FAILED else ""
            return [
                root.child(
                    f"receipt {entry.status}", "channel-adapter", moment.at, moment.at, moment.cause,
                    kind=SpanKind.CONSUMER, attributes={"switchboard.channel": entry.channel}, error=failed,
                )
            ]  # fmt: skip
        case Kind.CALLBACK:
            return [_callback_span(root, moment)]
        case _:
            return []


def _attempt_spans(root: _Root, moment: Moment) -> list[ReadableSpan]:
    entry = moment.entry
    ends = [exchange.finished_at for exchange in entry.exchanges]
    attempt = root.child(
        f"send {entry.channel}",
        "channel-adapter",
        entry.started_at or moment.at,
        max([*ends, moment.at]),
        moment.cause,
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": entry.channel.lower(),
            "messaging.operation.name": "send",
            "switchboard.step": entry.step or 0,
            "switchboard.submission": entry.submission or 0,
            "switchboard.outcome": entry.status,
        },
        error=entry.reason.code if entry.reason else "",
    )
    exchanges = [
        _exchange_span(root, attempt, moment.cause, number, exchange) for number, exchange in enumerate(entry.exchanges)
    ]
    return [attempt, *exchanges]


def _exchange_span(root: _Root, attempt: ReadableSpan, cause: str, number: int, exchange: Exchange) -> ReadableSpan:
    return root.child(
        exchange.operation,
        "channel-adapter",
        exchange.started_at,
        exchange.finished_at,
        f"{cause}/{number}",
        parent=attempt.context,
        kind=SpanKind.CLIENT,
        attributes={"switchboard.answer": exchange.answer, "switchboard.detail": exchange.detail},
    )


def _callback_span(root: _Root, moment: Moment) -> ReadableSpan:
    entry = moment.entry
    is_taken = 200 <= entry.http_status < 300
    return root.child(
        f"callback {entry.status}".rstrip(),
        "callback-delivery",
        entry.started_at or moment.at,
        moment.at,
        f"{entry.callback_id}/{entry.try_number}",
        kind=SpanKind.CLIENT,
        attributes={
            "http.request.method": "POST",
            "http.response.status_code": entry.http_status,
            "switchboard.callback_id": entry.callback_id,
            "switchboard.try": entry.try_number,
        },
        error="" if is_taken else entry.note or "not taken",
    )


def _event(moment: Moment) -> Event:
    entry = moment.entry
    attributes: dict[str, str | int] = {"switchboard.channel": entry.channel, "switchboard.step": entry.step or 0}
    if entry.status:
        attributes["switchboard.status"] = entry.status
    if entry.reason is not None:
        attributes["error.type"] = entry.reason.code
    return Event(f"{moment.kind}: {entry.note}", attributes, _nanoseconds(moment.at))


def _links(moments: Iterable[Moment]) -> Iterable[Link]:
    """The caller's own trace, where it sent a `traceparent`."""
    for moment in moments:
        parts = moment.entry.traceparent.split("-")
        if len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
            try:
                trace_id, span_id = int(parts[1], 16), int(parts[2], 16)
            except ValueError:
                continue
            if trace_id and span_id:
                yield Link(SpanContext(trace_id, span_id, is_remote=True), {"switchboard.link": "caller"})


def _nanoseconds(moment: datetime) -> int:
    whole, fraction = divmod(moment.timestamp(), 1)
    return int(whole) * _NANOSECONDS + round(fraction * 1_000_000) * 1_000
