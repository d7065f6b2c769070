"""A timeline as people read it: what happened, and why."""

from datetime import UTC, datetime, timedelta

from switchboard.identity import ChannelName
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.facts import start
from switchboard.rules.route import Candidate, Route, Verdict
from switchboard.store.timeline import Moment
from switchboard.story import Line, tell
from switchboard.timeline import Entry, Kind

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOBODY = Reason(ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT, "The recipient has no identity on the channels asked for.")
CANDIDATES = (Candidate(ChannelName("TELEGRAM"), Verdict.NO_IDENTITY), Candidate(ChannelName("SMS"), Verdict.KEPT))


def line(entry: Entry) -> Line:
    [told] = tell([Moment(1, NOON, Kind.PLANNED, "accepted", entry)])
    return told


def test_a_plan_says_why_each_channel_is_in_or_out():
    told = line(Entry(note="planned", channel="SMS", candidates=CANDIDATES))

    assert told.candidates == CANDIDATES
    assert told.why == "TELEGRAM NO_IDENTITY, SMS KEPT; planned"


def test_a_message_that_goes_nowhere_says_the_reason_that_the_app_is_told():
    ended = start(Route((), empty_because=NOBODY), NOON, None, NOON)

    told = line(Entry(note=ended.note, effects=ended.effects))

    assert told.reason == NOBODY
    assert told.why == f"no channel; {NOBODY.code} ({NOBODY.description}); tells FAILED"


def test_what_a_fact_said_comes_before_what_the_app_is_told():
    refused = Reason(ReasonCode.CHANNEL_REJECT, "no")
    expired = start(Route((), empty_because=NOBODY), NOON, 3, NOON + timedelta(seconds=4))

    assert line(Entry(reason=refused, effects=expired.effects)).reason == refused
