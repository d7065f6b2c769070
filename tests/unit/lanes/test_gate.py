"""The breaker: when it closes, what it lets through, when it opens."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.lanes.gate import OPEN, Gate, GateRule, GateState, after, begin_probe, may_probe, pause
from switchboard.rules.progress import AttemptEnd

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = GateRule(closes_after=3, first_probe_seconds=5, last_probe_seconds=60, probe_patience_seconds=180)
OK, FAILED, NEUTRAL = AttemptEnd.OK, AttemptEnd.FAILED, AttemptEnd.NEUTRAL


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def closed(streak: int = 3, probe_in: float = 5, *, probing: bool = False) -> Gate:
    return Gate(GateState.CLOSED, streak, NOW + seconds(probe_in), probing)


@pytest.mark.parametrize(
    ("given_gate", "end", "then"),
    [
        (OPEN, OK, OPEN),
        (OPEN, NEUTRAL, OPEN),
        (OPEN, FAILED, Gate(fail_streak=1)),
        (Gate(fail_streak=2), OK, OPEN),
        (Gate(fail_streak=2), NEUTRAL, Gate(fail_streak=2)),
        (Gate(fail_streak=2), FAILED, closed()),
        # Stragglers of before say nothing new; one that went well does.
        (closed(), FAILED, closed()),
        (closed(), NEUTRAL, closed()),
        (closed(), OK, OPEN),
        # The probe.
        (closed(3, 180, probing=True), OK, OPEN),
        (closed(3, 180, probing=True), FAILED, closed(4, 10)),
        (closed(4, 180, probing=True), FAILED, closed(5, 20)),
        (closed(40, 180, probing=True), FAILED, closed(41, 60)),
        (closed(3, 180, probing=True), NEUTRAL, closed(3, 0)),
        # An operator's pause is nobody else's to end.
        (pause(OPEN), OK, pause(OPEN)),
        (pause(OPEN), FAILED, pause(OPEN)),
    ],
)
def test_a_gate_learns_from_how_attempts_end(given_gate: Gate, end: AttemptEnd, then: Gate) -> None:
    assert after(given_gate, end, NOW, RULE) == then


@pytest.mark.parametrize(
    ("gate", "at", "expected"),
    [
        (closed(), 4.999, False),
        (closed(), 5, True),
        (OPEN, 5, False),
        (pause(closed()), 500, False),
        (begin_probe(closed(), NOW + seconds(5), RULE), 184, False),
        # A probe of which nothing was heard does not keep the gate closed for ever.
        (begin_probe(closed(), NOW + seconds(5), RULE), 185, True),
    ],
)
def test_one_probe_at_a_time_from_probe_at_on(gate: Gate, at: float, expected: bool) -> None:
    assert may_probe(gate, NOW + seconds(at)) is expected


@given(st.lists(st.sampled_from([OK, FAILED, NEUTRAL, "probe"]), max_size=60))
def test_a_closed_gate_always_knows_when_it_is_probed_next(happenings: list[AttemptEnd | str]) -> None:
    gate, now = OPEN, NOW
    for happening in happenings:
        now += seconds(1)
        if isinstance(happening, AttemptEnd):
            gate = after(gate, happening, now, RULE)
        elif may_probe(gate, now):
            gate = begin_probe(gate, now, RULE)

        if gate.state is GateState.CLOSED:
            assert gate.probe_at is not None
            assert gate.probe_at <= now + seconds(RULE.probe_patience_seconds)
            assert gate.fail_streak >= RULE.closes_after
        else:
            assert gate.fail_streak < RULE.closes_after
