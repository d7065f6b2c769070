"""The gate of a lane: a breaker that learns from how attempts end, and finds out with real messages when to open.

```
open ──(fail_streak reaches `closes_after`)──→ closed ──(an attempt ends well)──→ open
 ↑                                              │  ↑
 │                                     at probe_at one message is let through; if it fails,
 │                                     probe_at moves further away: first_probe · 2^k, at most last_probe
 └──(resume)── paused ←──(an operator's pause)──┘
```
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.rules.progress import AttemptEnd


class GateState(StrEnum):
    """Whether attempts may start."""

    OPEN = "open"
    #: The breaker: only probes start.
    CLOSED = "closed"
    #: An operator: nothing starts, everything waits.
    PAUSED = "paused"


class GateRule(Struct, frozen=True):
    """When a gate closes and how often it is probed."""

    #: Failures in a row that close it.
    closes_after: int = 10
    first_probe_seconds: float = 5
    last_probe_seconds: float = 60
    #: A probe of which nothing was heard is given up, and another one may go.
    probe_patience_seconds: float = 180


DEFAULT_RULE: Final = GateRule()


class Gate(Struct, frozen=True):
    """The state of a breaker."""

    state: GateState = GateState.OPEN
    fail_streak: int = 0
    #: When the next message is let through a closed gate.
    probe_at: datetime | None = None
    probing: bool = False


OPEN: Final = Gate()


def after(gate: Gate, end: AttemptEnd, now: datetime, rule: GateRule = DEFAULT_RULE) -> Gate:
    """The gate after one attempt ended."""
    match gate.state:
        case GateState.OPEN:
            return _after_while_open(gate, end, now, rule)
        case GateState.CLOSED:
            return _after_while_closed(gate, end, now, rule)
        case GateState.PAUSED:
            return gate


def _after_while_open(gate: Gate, end: AttemptEnd, now: datetime, rule: GateRule) -> Gate:
    if end is AttemptEnd.NEUTRAL:
        return gate
    if end is AttemptEnd.OK:
        return gate if gate.fail_streak == 0 else OPEN
    streak = gate.fail_streak + 1
    if streak < rule.closes_after:
        return Gate(fail_streak=streak)
    return Gate(GateState.CLOSED, streak, now + _probe_delay(streak, rule))


def _after_while_closed(gate: Gate, end: AttemptEnd, now: datetime, rule: GateRule) -> Gate:
    if end is AttemptEnd.OK:
        return OPEN
    # What started before the gate closed still ends: it says nothing new.
    if not gate.probing:
        return gate
    if end is AttemptEnd.NEUTRAL:
        return replace(gate, probing=False, probe_at=now)
    streak = gate.fail_streak + 1
    return Gate(GateState.CLOSED, streak, now + _probe_delay(streak, rule))


def may_probe(gate: Gate, now: datetime) -> bool:
    """Tell whether the next message is the probe of this closed gate."""
    return gate.state is GateState.CLOSED and gate.probe_at is not None and gate.probe_at <= now


def begin_probe(gate: Gate, now: datetime, rule: GateRule = DEFAULT_RULE) -> Gate:
    """The gate once its probe is under way: nobody else probes before this one ends or is given up."""
    return replace(gate, probing=True, probe_at=now + timedelta(seconds=rule.probe_patience_seconds))


def pause(gate: Gate) -> Gate:
    """The gate after an operator stopped the lane."""
    return replace(gate, state=GateState.PAUSED)


def _probe_delay(streak: int, rule: GateRule) -> timedelta:
    doublings = min(max(0, streak - rule.closes_after), 30)
    return timedelta(seconds=min(rule.first_probe_seconds * 2**doublings, rule.last_probe_seconds))
