"""What follows every fact about a message, as given / when / then."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.deadlines import OUTCOME_GRACE_SECONDS, on_due
from switchboard.rules.facts import (
    on_abandoned,
    on_app_gone,
    on_dead_letter,
    on_outcome,
    on_receipt,
    on_resolved,
    start,
)
from switchboard.rules.moves import CLAIM_SECONDS, UNKNOWN_WAIT_SECONDS, backoff_seconds
from switchboard.rules.progress import (
    INTERNAL_ERROR,
    AttemptEnd,
    AttemptView,
    Decision,
    Effects,
    OnUnknown,
    Phase,
    Policy,
    Progress,
)
from switchboard.rules.route import Route, RouteStep
from switchboard.status import Status
from switchboard.trigger import Trigger

T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)
REJECTED = Reason(ReasonCode.CHANNEL_REJECT, "no")
AWAY = Reason(ReasonCode.RECIPIENT_NOT_REACHABLE, "off")
DOUBT = Reason(ReasonCode.UNKNOWN, "timeout")
BUSY = Reason(ReasonCode.CHANNEL_FAILURE, "5xx")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def step(channel: str, *, receipts: bool = True, wait: int | None = None, deduplicates: bool = False) -> RouteStep:
    return RouteStep(
        ChannelIdentity(ChannelName(channel), "someone"),
        AccountKey(f"account:{channel}"),
        (Status.DELIVERED, Status.READ) if receipts else (),
        wait_seconds=wait,
        deduplicates=deduplicates,
    )


SMS = Route((step("SMS"),))
TELEGRAM = Route((step("TELEGRAM", receipts=False),))
BOTH = Route((step("RCS"), step("SMS")))
READ_OR_ON = Route((replace(step("RCS", wait=60), until_read=True), step("SMS")))
TIMED = Route((step("RCS", wait=60), step("SMS")))
RETRACTABLE = Route(tuple(replace(step, can_retract=True) for step in TIMED.steps))


PATIENT = Policy()


class Story:
    """One message, told fact by fact; keeps what was raised."""

    def __init__(self, route: Route, *, ttl: int | None = None, policy: Policy = PATIENT, now: float = 0) -> None:
        self.route, self.policy = route, policy
        self.told: list[str] = []
        self.codes: list[ReasonCode | None] = []
        self.dispatched: list[tuple[int, int]] = []
        self.last: Decision
        self._take(start(route, T0, ttl, at(now)))

    def _take(self, decision: Decision) -> "Story":
        self.last = decision
        self.progress: Progress = decision.progress
        for due in decision.effects.callbacks:
            channel = self.route.steps[due.step].channel if self.route.steps else ""
            self.told.append(f"{'SUBMIT' if due.trigger is Trigger.MESSAGE_SUBMIT else due.status} {channel}".strip())
            self.codes.append(due.reason.code if due.reason else None)
        if decision.effects.dispatch:
            self.dispatched.append(decision.effects.dispatch)
        return self

    def outcome(self, outcome: Outcome, now: float = 1, attempt: tuple[int, int] | None = None) -> "Story":
        of = attempt or (self.progress.step, self.progress.submission)
        return self._take(on_outcome(self.progress, self.route, self.policy, *of, outcome, at(now)))

    def receipt(
        self, status: Status, now: float = 2, part: str = "p1", attempt: tuple[int, int] | None = None
    ) -> "Story":
        of = attempt or (self.progress.step, self.progress.submission)
        reason = AWAY if status is Status.FAILED else None
        return self._take(on_receipt(self.progress, self.route, *of, part, status, reason, at(now), {}, at(now)))

    def due(self, now: float, attempt: AttemptView | None = None) -> "Story":
        return self._take(on_due(self.progress, self.route, self.policy, attempt, at(now)))


ACCEPTED = Accepted(("p1",))
TWO_PARTS = Accepted(("p1", "p2"))


class TestSequences:
    """The callbacks of conversation-api 11.1, in order."""

    CASES: tuple[tuple[str, Route, Callable[[Story], object], list[str]], ...] = (
        (
            "one channel, good, read",
            SMS,
            lambda s: s.outcome(ACCEPTED).receipt(Status.DELIVERED).receipt(Status.READ),
            ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "DELIVERED SMS", "READ SMS"],
        ),
        ("rejected by the only channel", SMS, lambda s: s.outcome(Rejected(REJECTED)), ["FAILED SMS"]),
        (
            "first rejects, second good",
            BOTH,
            lambda s: s.outcome(Rejected(REJECTED)).outcome(ACCEPTED).receipt(Status.DELIVERED),
            ["SWITCHING_CHANNEL RCS", "SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "DELIVERED SMS"],
        ),
        (
            "first accepts, then reports failure",
            BOTH,
            lambda s: s.outcome(ACCEPTED).receipt(Status.FAILED).outcome(Accepted(("q1",))),
            [
                "SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS",
                "SUBMIT SMS", "QUEUED_ON_CHANNEL SMS",
            ],
        ),
        (
            "all fail",
            BOTH,
            lambda s: s.outcome(Rejected(REJECTED)).outcome(Rejected(REJECTED)),
            ["SWITCHING_CHANNEL RCS", "FAILED SMS"],
        ),
        (
            "the message itself is wrong: no other channel is tried",
            BOTH,
            lambda s: s.outcome(Rejected(REJECTED, fails_message=True)),
            ["FAILED RCS"],
        ),
        (
            "half of it was taken: no failover",
            BOTH,
            lambda s: s.outcome(PartlyAccepted(("p1",), REJECTED)),
            ["FAILED RCS"],
        ),
        (
            "no report in time",
            TIMED,
            lambda s: s.outcome(ACCEPTED).due(61.5),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS"],
        ),
        (
            "a late DELIVERED of the channel left ends the fallback",
            TIMED,
            lambda s: s.outcome(ACCEPTED).due(61.5).receipt(Status.DELIVERED, 62, attempt=(0, 1)),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS", "DELIVERED RCS"],
        ),
        (
            "after one channel's DELIVERED another's acceptance and failure are not told",
            TIMED,
            lambda s: s.outcome(ACCEPTED)
            .due(61.5)
            .receipt(Status.DELIVERED, 62, attempt=(0, 1))
            .outcome(Accepted(("q1",)), 63, attempt=(1, 2))
            .receipt(Status.FAILED, 64, "q1", attempt=(1, 2)),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS", "DELIVERED RCS"],
        ),
        (
            "delivered and not read in time: the next channel is tried, and only its delivery is told",
            READ_OR_ON,
            lambda s: s.outcome(ACCEPTED)
            .receipt(Status.DELIVERED)
            .due(61.5)
            .outcome(Accepted(("q1",)), 62)
            .receipt(Status.DELIVERED, 63, "q1"),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "DELIVERED RCS", "DELIVERED SMS"],
        ),
        (
            "read in time: nothing else is tried",
            READ_OR_ON,
            lambda s: s.outcome(ACCEPTED).receipt(Status.DELIVERED).receipt(Status.READ, 30).due(61.5),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "DELIVERED RCS", "READ RCS"],
        ),
        (
            "delivered twice is told twice",
            TIMED,
            lambda s: s.outcome(ACCEPTED)
            .due(61.5)
            .outcome(Accepted(("q1",)), 62)
            .receipt(Status.DELIVERED, 63, "q1")
            .receipt(Status.DELIVERED, 64, attempt=(0, 1)),
            [
                "SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS", "SUBMIT SMS", "QUEUED_ON_CHANNEL SMS",
                "DELIVERED SMS", "DELIVERED RCS",
            ],
        ),
        (
            "a channel without receipts ends at acceptance",
            TELEGRAM,
            lambda s: s.outcome(ACCEPTED),
            ["SUBMIT TELEGRAM", "QUEUED_ON_CHANNEL TELEGRAM"],
        ),
        (
            "a receipt before its outcome raises the earlier statuses first",
            SMS,
            lambda s: s.receipt(Status.DELIVERED).outcome(ACCEPTED, 3),
            ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "DELIVERED SMS"],
        ),
        (
            "a failed receipt before its outcome keeps its reason",
            SMS,
            lambda s: s.receipt(Status.FAILED).outcome(ACCEPTED, 3),
            ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "FAILED SMS"],
        ),
        (
            "a real DELIVERED outranks FAILED",
            SMS,
            lambda s: s.outcome(ACCEPTED).receipt(Status.FAILED).receipt(Status.DELIVERED, 3),
            ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "FAILED SMS", "DELIVERED SMS"],
        ),
        (
            "all parts delivered",
            SMS,
            lambda s: s.outcome(TWO_PARTS).receipt(Status.DELIVERED).receipt(Status.DELIVERED, 3, "p2"),
            ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "DELIVERED SMS"],
        ),
        (
            "one part failed: the rest does not matter",
            BOTH,
            lambda s: s.outcome(TWO_PARTS).receipt(Status.FAILED, 2, "p2"),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "SWITCHING_CHANNEL RCS"],
        ),
        (
            "one part failed after another was delivered: no failover",
            BOTH,
            lambda s: s.outcome(TWO_PARTS).receipt(Status.DELIVERED).receipt(Status.FAILED, 3, "p2"),
            ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "FAILED RCS"],
        ),
    )  # fmt: skip

    @pytest.mark.parametrize(("name", "route", "facts", "told"), CASES, ids=[case[0] for case in CASES])
    def test_callbacks_in_order(self, name, route, facts, told):
        story = Story(route)

        facts(story)

        assert story.told == told

    @pytest.mark.parametrize(("name", "route", "facts", "told"), CASES, ids=[case[0] for case in CASES])
    def test_sequence_numbers_rise_without_gaps(self, name, route, facts, told):
        story = Story(route)

        facts(story)

        assert story.progress.ledger.raised == len(told)


class TestRepeats:
    def test_a_repeated_receipt_changes_nothing(self):
        story = Story(SMS).outcome(ACCEPTED).receipt(Status.DELIVERED)
        before = story.progress

        story.receipt(Status.DELIVERED, 9)

        assert story.progress == before
        assert not story.last.effects

    def test_late_delivered_does_not_undo_read(self):
        story = Story(SMS).outcome(ACCEPTED).receipt(Status.READ)

        story.receipt(Status.DELIVERED, 3)

        assert story.progress.status is Status.READ
        assert not story.last.effects

    def test_an_outcome_of_an_earlier_attempt_is_only_recorded(self):
        story = Story(SMS).outcome(FailedForNow(BUSY)).due(4000)

        story.outcome(Rejected(REJECTED), 4001, attempt=(0, 1))

        assert story.progress.phase is Phase.SENDING
        assert not story.last.effects

    def test_the_end_of_an_attempt_is_told_to_its_lanes_even_when_it_comes_late(self):
        story = Story(SMS).receipt(Status.DELIVERED)

        story.outcome(ACCEPTED, 3)

        assert story.last.effects.ended == (0, 1, AttemptEnd.OK)


def test_acceptance_is_told_with_the_time_it_was_recorded():
    """Not with the time the router came to it: its receipt may bear an earlier one."""
    begun = start(SMS, T0, None, at(0)).progress

    decision = on_outcome(begun, SMS, PATIENT, 0, 1, ACCEPTED, at(5), at(1))

    assert [due.event_at for due in decision.effects.callbacks] == [at(1), at(1)]


class TestRetry:
    def test_a_failure_for_now_is_tried_again_on_the_same_channel(self):
        story = Story(BOTH).outcome(FailedForNow(BUSY))
        assert story.progress.phase is Phase.RETRYING
        assert story.progress.retry_at is not None

        story.due((story.progress.retry_at - T0).total_seconds())

        assert story.dispatched == [(0, 1), (0, 2)]
        assert story.told == []

    def test_the_provider_s_own_delay_wins(self):
        story = Story(SMS).outcome(FailedForNow(BUSY, retry_after_seconds=77), 1)

        assert story.progress.retry_at == at(78)

    def test_the_last_retry_is_made_at_the_limit_and_then_the_channel_is_left(self):
        story = Story(BOTH, policy=Policy(retry_seconds=30)).outcome(FailedForNow(BUSY, retry_after_seconds=500), 1)
        assert story.progress.retry_at == at(31)

        story.due(31).outcome(FailedForNow(BUSY), 32)

        assert story.told == ["SWITCHING_CHANNEL RCS"]
        assert story.dispatched == [(0, 1), (0, 2), (1, 3)]

    def test_throttling_is_not_counted_as_a_try_and_says_nothing_about_the_channel(self):
        story = Story(SMS).outcome(FailedForNow(Reason(ReasonCode.RATE_LIMITED), throttled=True))

        assert story.progress.tries == 0
        assert story.last.effects.ended == (0, 1, AttemptEnd.NEUTRAL)

    def test_a_provider_without_a_connection_is_no_try_either_but_counts_against_its_gate(self):
        story = Story(SMS).outcome(FailedForNow(BUSY, throttled=True))

        assert story.progress.tries == 0
        assert story.last.effects.ended == (0, 1, AttemptEnd.FAILED)

    def test_a_code_with_few_tries_is_tried_at_least_once_more(self):
        story = Story(BOTH).outcome(FailedForNow(BUSY, max_tries=1))
        assert story.progress.phase is Phase.RETRYING

        story.due(400).outcome(FailedForNow(BUSY, max_tries=1), 401)

        assert story.told == ["SWITCHING_CHANNEL RCS"]

    def test_no_attempt_begins_after_the_message_expired(self):
        story = Story(BOTH, ttl=10).outcome(FailedForNow(BUSY, retry_after_seconds=60))
        assert story.progress.next_due == at(10)

        story.due(10)

        assert story.told == ["FAILED RCS"]
        assert story.codes[-1] is ReasonCode.MESSAGE_EXPIRED

    @given(st.integers(1, 60), st.text(max_size=8))
    def test_the_back_off_is_bounded_and_the_same_every_time(self, tries, name):
        assert 0 <= backoff_seconds(tries, name) <= 300
        assert backoff_seconds(tries, name) == backoff_seconds(tries, name)


class TestUnknown:
    PARTLY = Unknown(DOUBT, ("p1", "p2"), parts=3)

    def test_a_part_that_arrived_says_nothing_about_parts_in_doubt(self):
        story = Story(BOTH).outcome(self.PARTLY).receipt(Status.DELIVERED, 5).receipt(Status.DELIVERED, 6, "p2")
        assert (story.told, story.progress.phase) == ([], Phase.UNKNOWN)

        story.due(400)

        assert (story.told, story.codes) == (["FAILED RCS"], [ReasonCode.UNKNOWN])

    def test_receipts_of_all_parts_settle_the_doubt(self):
        story = Story(SMS).outcome(Unknown(DOUBT, ("p1", "p2"), parts=2)).receipt(Status.DELIVERED, 5)

        story.receipt(Status.DELIVERED, 6, "p2")

        assert story.told == ["SUBMIT SMS", "QUEUED_ON_CHANNEL SMS", "DELIVERED SMS"]

    def test_an_unknown_outcome_waits_and_then_fails_with_its_own_reason(self):
        story = Story(BOTH).outcome(Unknown(DOUBT), 1)
        assert (story.progress.phase, story.progress.next_due) == (Phase.UNKNOWN, at(1 + UNKNOWN_WAIT_SECONDS))
        assert story.told == []

        story.due(1 + UNKNOWN_WAIT_SECONDS)

        assert story.told == ["FAILED RCS"]
        assert story.codes[-1] is ReasonCode.UNKNOWN
        assert story.dispatched == [(0, 1)]

    def test_it_waits_as_long_as_its_step_would(self):
        assert Story(TIMED).outcome(Unknown(DOUBT), 1).progress.next_due == at(61)

    def test_a_positive_receipt_in_time_makes_it_accepted(self):
        story = Story(BOTH).outcome(Unknown(DOUBT)).receipt(Status.DELIVERED, 5)

        assert story.told == ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS", "DELIVERED RCS"]

    def test_an_acceptance_in_time_makes_it_accepted(self):
        story = Story(BOTH).outcome(Unknown(DOUBT)).outcome(ACCEPTED, 5)

        assert story.told == ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS"]
        assert story.progress.phase is Phase.SUBMITTED

    def test_a_channel_without_receipts_has_nothing_to_wait_for(self):
        assert Story(TELEGRAM).outcome(Unknown(DOUBT)).told == ["FAILED TELEGRAM"]

    def test_fail_over_goes_on_where_the_app_asked_for_it(self):
        story = Story(BOTH, policy=Policy(on_unknown=OnUnknown.FAIL_OVER)).outcome(Unknown(DOUBT), 1).due(400)

        assert story.told == ["SWITCHING_CHANNEL RCS"]

    def test_where_the_provider_deduplicates_it_is_simply_sent_again(self):
        story = Story(Route((step("RCS", deduplicates=True),))).outcome(Unknown(DOUBT))

        assert story.progress.phase is Phase.RETRYING

    def test_an_operator_can_resolve_it(self):
        story = Story(SMS).outcome(Unknown(DOUBT))

        decision = on_resolved(story.progress, SMS, 0, 1, Status.DELIVERED, None, at(9))

        assert decision.progress.status is Status.DELIVERED


class TestClaims:
    def test_a_planned_attempt_that_nobody_claims_is_published_once_more_then_retried(self):
        story = Story(SMS)
        assert story.progress.next_due == at(CLAIM_SECONDS)

        story.due(31, AttemptView("planned", send_before=at(30)))
        assert story.last.effects.redispatch == (0, 1)

        story.due(62, AttemptView("planned", send_before=at(61), republished=True))
        assert story.progress.phase is Phase.RETRYING
        assert story.last.effects.cancel == (0, 1)
        assert story.last.effects.ended == (0, 1, AttemptEnd.FAILED)

    def test_a_claimed_attempt_is_left_alone_until_its_deadline_and_is_then_unknown(self):
        story = Story(BOTH).due(31, AttemptView("claimed", claimed_at=at(5), send_before=at(30)))
        deadline = 5 + BOTH.steps[0].send_timeout_seconds + OUTCOME_GRACE_SECONDS
        assert (story.progress.phase, story.progress.next_due) == (Phase.CLAIMED, at(deadline))

        story.due(deadline, AttemptView("claimed", claimed_at=at(5)))

        assert story.progress.phase is Phase.UNKNOWN
        assert story.told == []

    def test_the_ttl_does_not_touch_a_claimed_attempt(self):
        story = Story(SMS, ttl=10).due(11, AttemptView("claimed", claimed_at=at(9)))

        assert story.progress.phase is Phase.CLAIMED

    def test_an_attempt_in_its_lane_waits_until_the_message_expires(self):
        story = Story(SMS).due(31, AttemptView("planned"))
        assert story.progress.next_due == at(72 * 3600)

        story.due(72 * 3600, AttemptView("planned"))

        assert story.told == ["FAILED SMS"]
        assert story.last.effects.cancel == (0, 1)

    def test_an_abandoned_attempt_moves_on_only_while_it_is_planned(self):
        story = Story(BOTH)

        late = on_abandoned(story.progress, BOTH, AttemptView("claimed", claimed_at=at(1)), 0, 1, BUSY, False, at(2))
        assert not late.effects

        moved = on_abandoned(story.progress, BOTH, AttemptView("planned"), 0, 1, BUSY, False, at(2))
        assert (moved.effects.cancel, moved.effects.dispatch) == ((0, 1), (1, 2))

    def test_a_purged_message_ends(self):
        story = Story(BOTH)

        decision = on_abandoned(story.progress, BOTH, AttemptView("planned"), 0, 1, BUSY, True, at(2))

        assert decision.progress.is_final
        assert decision.effects.dispatch is None


class TestEnds:
    def test_a_message_without_a_channel_fails_with_the_route_s_reason(self):
        story = Story(Route((), empty_because=REJECTED))

        assert story.told == ["FAILED"]
        assert story.progress.is_final

    def test_a_message_that_expired_before_it_was_planned_is_not_sent(self):
        story = Story(SMS, ttl=5, now=6)

        assert story.dispatched == []
        assert story.codes[-1] is ReasonCode.MESSAGE_EXPIRED

    def test_after_the_ttl_a_failed_receipt_does_not_fail_over(self):
        story = Story(BOTH, ttl=10).outcome(ACCEPTED).receipt(Status.FAILED, 11)

        assert story.told[-1] == "FAILED RCS"
        assert story.codes[-1] is ReasonCode.MESSAGE_EXPIRED

    def test_when_the_ttl_is_up_a_channel_that_can_takes_back_what_it_did_not_deliver(self):
        story = Story(RETRACTABLE, ttl=30).outcome(TWO_PARTS)

        assert story.progress.step_due_at == at(30)
        assert story.due(30).last.effects == Effects(retract=(0, 1))
        assert story.progress.ledger.of(0).provider_ids == ("p1", "p2")
        assert story.progress.phase is Phase.SUBMITTED
        assert not story.due(31).last.effects

    def test_what_was_delivered_or_left_before_the_ttl_is_not_taken_back(self):
        assert not Story(RETRACTABLE, ttl=30).outcome(ACCEPTED).receipt(Status.DELIVERED).due(30).last.effects
        assert Story(RETRACTABLE, ttl=90).outcome(ACCEPTED).due(61.5).last.effects.dispatch == (1, 2)

    def test_without_a_ttl_or_where_the_channel_cannot_nothing_is_taken_back(self):
        assert Story(Route(RETRACTABLE.steps[1:])).outcome(ACCEPTED).progress.step_due_at is None
        assert Story(SMS, ttl=30).outcome(ACCEPTED).progress.step_due_at is None

    def test_ids_that_come_after_a_receipt_are_known_when_the_ttl_is_up(self):
        story = Story(RETRACTABLE, ttl=30).receipt(Status.FAILED, part="p2").outcome(TWO_PARTS, attempt=(0, 1))

        assert story.progress.ledger.of(0).provider_ids == ("p1", "p2")

    def test_after_the_ttl_a_missing_report_does_not_fail_over(self):
        story = Story(TIMED, ttl=30).outcome(ACCEPTED).due(61.5)

        assert story.told == ["SUBMIT RCS", "QUEUED_ON_CHANNEL RCS"]
        assert story.progress.next_due == story.progress.horizon_at

    def test_the_receipt_horizon_ends_it_submitted(self):
        story = Story(SMS).outcome(ACCEPTED)
        horizon = story.progress.horizon_at
        assert horizon is not None

        story.due((horizon - T0).total_seconds())

        assert (story.progress.is_final, story.progress.status) == (True, Status.QUEUED_ON_CHANNEL)
        assert not story.last.effects

    def test_a_dead_letter_ends_it_and_tells_the_app(self):
        story = Story(BOTH)

        decision = on_dead_letter(story.progress, at(1))

        assert decision.effects.callbacks[0].reason == INTERNAL_ERROR
        assert decision.effects.cancel == (0, 1)
        assert not on_dead_letter(decision.progress, at(2)).effects


FACTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                ACCEPTED, TWO_PARTS, Rejected(REJECTED), Rejected(REJECTED, fails_message=True), FailedForNow(BUSY),
                FailedForNow(BUSY, throttled=True), Unknown(DOUBT), PartlyAccepted(("p1",), REJECTED),
            ]
        ),
        st.tuples(st.sampled_from([Status.DELIVERED, Status.READ, Status.FAILED]), st.sampled_from(["p1", "p2"]),
                  st.integers(0, 1)),
        st.integers(1, 400_000),
    ),
    max_size=12,
)  # fmt: skip


@given(st.sampled_from([SMS, TELEGRAM, BOTH, TIMED, READ_OR_ON]), st.sampled_from([None, 30, 3600]), FACTS)
def test_whatever_happens_the_invariants_hold(route, ttl, facts):
    """No message is forgotten, none ends twice, statuses do not go back, sequence numbers have no gap."""
    story = Story(route, ttl=ttl)
    now = 1.0
    for fact in facts:
        before = story.progress
        match fact:
            case int():
                now += fact
                view = AttemptView("planned", send_before=before.claim_due_at)
                story.due(now, view if before.phase in (Phase.SENDING, Phase.CLAIMED) else None)
            case (status, part, of) if of < len(route.steps):
                submission = next((s for place, s in story.dispatched if place == of), None)
                if submission is not None:
                    story.receipt(status, now, part, attempt=(of, submission))
            case (_, _, _):
                continue
            case _:
                story.outcome(fact, now)
        after = story.progress

        assert after.is_final or after.next_due is not None
        assert not before.is_final or after.is_final
        assert not (before.is_final and story.last.effects.dispatch)
        if before.status is Status.READ:
            assert after.status is Status.READ
        if before.status is Status.DELIVERED:
            assert after.status in (Status.DELIVERED, Status.READ)
    assert story.progress.ledger.raised == len(story.told)
    assert len(story.dispatched) == len(set(story.dispatched))
    finals = [told for told in story.told if told.startswith("FAILED")]
    assert len(finals) <= 1


def test_the_progress_can_be_stored_and_read_back():
    import msgspec

    progress = Story(BOTH).outcome(TWO_PARTS).receipt(Status.DELIVERED).progress

    assert msgspec.json.decode(msgspec.json.encode(progress), type=Progress) == progress
    assert replace(progress) == progress


class TestAppGone:
    """The app was deleted: what was decided to be tried is not, and the message ends."""

    def test_a_retry_and_a_failover_are_not_made(self):
        retried = Story(SMS)
        retried.outcome(FailedForNow(BUSY))
        switched = Story(BOTH)
        switched.outcome(Rejected(REJECTED))
        due = on_due(retried.progress, SMS, PATIENT, None, at(600))

        for decision, told in (
            (due, [Status.FAILED]),
            (switched.last, [Status.SWITCHING_CHANNEL, Status.FAILED]),
        ):
            over = on_app_gone(decision, at(600))
            assert decision.effects.dispatch is not None
            assert over.effects.dispatch is None
            assert over.effects.ended == decision.effects.ended
            assert [callback.status for callback in over.effects.callbacks] == told
            assert over.progress.is_final
            assert over.progress.reason is not None
            assert over.progress.reason.code is ReasonCode.UNKNOWN_APP

    def test_what_plans_nothing_stays_as_it_is(self):
        accepted = Story(SMS).outcome(ACCEPTED)

        assert on_app_gone(accepted.last, at(9)) is accepted.last


class TestDoubtAtAProviderThatDropsDuplicates:
    """It is tried again, and not left for another channel before it said something, unless that was asked for."""

    ROUTE = Route((step("RCS", deduplicates=True), step("SMS")))

    def doubtful(self, policy: Policy = PATIENT) -> Story:
        return Story(self.ROUTE, policy=policy).outcome(Unknown(DOUBT)).due(2)

    def test_it_is_not_left_while_nobody_knows(self):
        story = self.doubtful().outcome(FailedForNow(BUSY, max_tries=1), 3)

        assert story.told == ["FAILED RCS"]
        assert story.codes == [ReasonCode.UNKNOWN]
        assert story.dispatched == [(0, 1), (0, 2)]

    def test_a_refusal_of_the_second_is_word_of_both(self):
        assert self.doubtful().outcome(Rejected(REJECTED), 3).dispatched == [(0, 1), (0, 2), (1, 3)]

    def test_where_it_was_asked_for_it_is_left(self):
        story = self.doubtful(Policy(on_unknown=OnUnknown.FAIL_OVER)).outcome(FailedForNow(BUSY, max_tries=1), 3)

        assert story.dispatched == [(0, 1), (0, 2), (1, 3)]


def test_that_an_earlier_attempt_failed_is_no_word_about_the_one_in_doubt():
    story = Story(BOTH).outcome(FailedForNow(BUSY)).due(2).outcome(Unknown(DOUBT), 3)
    decision = on_resolved(story.progress, BOTH, 0, 1, Status.FAILED, None, at(4))

    assert not decision.effects
    assert decision.progress == story.progress
