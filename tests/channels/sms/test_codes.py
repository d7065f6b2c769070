"""What each command_status means for a message (channel-providers 1.2.3)."""

import pytest

from switchboard.channel.outcome import FailedForNow, Rejected
from switchboard.reason import ReasonCode as R
from switchboard_channels.sms.codes import Verdict, refusal, rule_of, status_name


@pytest.mark.parametrize(
    ("statuses", "verdict", "reason"),
    [
        ((0x01, 0x02, 0x03), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0x04,), Verdict.RETRY, R.CHANNEL_FAILURE),
        ((0x06, 0x07), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0x08,), Verdict.RETRY, R.CHANNEL_FAILURE),
        ((0x0A,), Verdict.CONFIG, R.CHANNEL_BAD_CONFIGURATION),
        ((0x0B,), Verdict.PERMANENT, R.RECIPIENT_INVALID_CHANNEL_IDENTITY),
        ((0x0D, 0x0E, 0x0F), Verdict.CONFIG, R.CHANNEL_BAD_CONFIGURATION),
        ((0x14,), Verdict.RETRY, R.RATE_LIMITED),
        ((0x15,), Verdict.CONFIG, R.CHANNEL_BAD_CONFIGURATION),
        ((0x43,), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0x45,), Verdict.RETRY, R.CHANNEL_REJECT),
        ((0x48, 0x49), Verdict.CONFIG, R.CHANNEL_BAD_CONFIGURATION),
        ((0x50, 0x51), Verdict.PERMANENT, R.RECIPIENT_INVALID_CHANNEL_IDENTITY),
        ((0x53,), Verdict.CONFIG, R.CHANNEL_BAD_CONFIGURATION),
        ((0x58,), Verdict.THROTTLED, R.RATE_LIMITED),
        ((0x61, 0x62), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0x64,), Verdict.RETRY, R.CHANNEL_FAILURE),
        ((0x65, 0x66), Verdict.PERMANENT, R.CHANNEL_REJECT),
        ((0xC0, 0xC1, 0xC2, 0xC3, 0xC4), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0xFE,), Verdict.PERMANENT, R.RECIPIENT_NOT_REACHABLE),
        ((0xFF,), Verdict.RETRY, R.UNKNOWN),
        ((0x100, 0x101, 0x103), Verdict.CONFIG, R.NO_PERMISSION),
        ((0x102,), Verdict.RETRY, R.NO_PERMISSION),
        ((0x104,), Verdict.PERMANENT, R.BAD_REQUEST),
        ((0x400, 0x411, 0x4FF, 0x99), Verdict.PERMANENT, R.CHANNEL_REJECT),
    ],
)
def test_statuses_mean_what_the_table_says(statuses: tuple[int, ...], verdict: Verdict, reason: R) -> None:
    for status in statuses:
        rule = rule_of(status)
        assert (rule.verdict, rule.reason) == (verdict, reason), hex(status)


def test_a_refusal_quotes_the_status() -> None:
    outcome = refusal(0x0B)

    assert isinstance(outcome, Rejected)
    assert outcome.reason.description == "The underlying channel reported: ESME_RINVDSTADR"
    assert outcome.reason.channel_code == "0xb"
    assert status_name(0x411) == "0x411"


def test_a_throttle_is_no_try_and_says_how_long() -> None:
    outcome = refusal(0x58, pause_seconds=2.0)

    assert isinstance(outcome, FailedForNow)
    assert outcome.throttled
    assert outcome.retry_after_seconds == 2.0


@pytest.mark.parametrize(("status", "max_tries"), [(0x08, 5), (0x45, 3), (0xFF, 2), (0x64, None), (0x14, None)])
def test_some_refusals_are_worth_only_a_few_tries(status: int, max_tries: int | None) -> None:
    outcome = refusal(status)

    assert isinstance(outcome, FailedForNow)
    assert not outcome.throttled
    assert outcome.max_tries == max_tries


def test_a_wrong_sender_is_an_alarm() -> None:
    outcome = refusal(0x0A)

    assert isinstance(outcome, Rejected)
    assert outcome.misconfigured
