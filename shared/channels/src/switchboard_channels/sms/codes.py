"""What an SMSC's codes mean for a message: command_status in answers, states and errors in receipts.

Tables of channel-providers 1.2.3 and 1.2.4.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from switchboard.channel.outcome import FailedForNow, Rejected
from switchboard.reason import Reason, ReasonCode, reported
from switchboard.status import Status as MessageStatus
from switchboard_channels.sms.pdu import Status
from switchboard_channels.sms.receipt import MessageState, Receipt


class Verdict(StrEnum):
    """What a refusal is."""

    #: It would be refused again.
    PERMANENT = "permanent"
    #: Our account, sender or set-up is wrong.
    CONFIG = "config"
    #: The same submit may be taken later.
    RETRY = "retry"
    #: Too fast: the whole bind stops for a while, and the message does not lose a try.
    THROTTLED = "throttled"


class StatusRule(Struct, frozen=True):
    """What one command_status means."""

    verdict: Verdict
    reason: ReasonCode
    #: Tries in all that make sense for this code; None leaves it to the message's retry duration.
    max_tries: int | None = None
    retry_after_seconds: float | None = None


_BUG: Final = StatusRule(Verdict.PERMANENT, ReasonCode.BAD_REQUEST)
_NO_SUCH_NUMBER: Final = StatusRule(Verdict.PERMANENT, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY)
_REFUSED: Final = StatusRule(Verdict.PERMANENT, ReasonCode.CHANNEL_REJECT)
_MISCONFIGURED: Final = StatusRule(Verdict.CONFIG, ReasonCode.CHANNEL_BAD_CONFIGURATION)
_NOT_ALLOWED: Final = StatusRule(Verdict.CONFIG, ReasonCode.NO_PERMISSION)
_LATER: Final = StatusRule(Verdict.RETRY, ReasonCode.CHANNEL_FAILURE)

#: Statuses without a row, vendors' 0x400 to 0x4FF among them, refuse for good.
OTHER_STATUS: Final = _REFUSED

RULES: Final[Mapping[int, StatusRule]] = {
    Status.RINVMSGLEN: _BUG,
    Status.RINVCMDLEN: _BUG,
    Status.RINVCMDID: _BUG,
    # The session rebinds; the message waits for it.
    Status.RINVBNDSTS: _LATER,
    Status.RALYBND: _LATER,
    Status.RINVPRTFLG: _BUG,
    Status.RINVREGDLVFLG: _BUG,
    Status.RSYSERR: StatusRule(Verdict.RETRY, ReasonCode.CHANNEL_FAILURE, max_tries=5),
    Status.RINVSRCADR: _MISCONFIGURED,
    Status.RINVDSTADR: _NO_SUCH_NUMBER,
    Status.RBINDFAIL: _MISCONFIGURED,
    Status.RINVPASWD: _MISCONFIGURED,
    Status.RINVSYSID: _MISCONFIGURED,
    Status.RMSGQFUL: StatusRule(Verdict.RETRY, ReasonCode.RATE_LIMITED, retry_after_seconds=10.0),
    Status.RINVSERTYP: _MISCONFIGURED,
    Status.RINVESMCLASS: _BUG,
    Status.RSUBMITFAIL: StatusRule(Verdict.RETRY, ReasonCode.CHANNEL_REJECT, max_tries=3),
    Status.RINVSRCTON: _MISCONFIGURED,
    Status.RINVSRCNPI: _MISCONFIGURED,
    Status.RINVDSTTON: _NO_SUCH_NUMBER,
    Status.RINVDSTNPI: _NO_SUCH_NUMBER,
    Status.RINVSYSTYP: _MISCONFIGURED,
    Status.RTHROTTLED: StatusRule(Verdict.THROTTLED, ReasonCode.RATE_LIMITED),
    Status.RINVSCHED: _BUG,
    Status.RINVEXPIRY: _BUG,
    Status.RX_T_APPN: _LATER,
    Status.RX_P_APPN: _REFUSED,
    Status.RX_R_APPN: _REFUSED,
    Status.RINVOPTPARSTREAM: _BUG,
    Status.ROPTPARNOTALLWD: _BUG,
    Status.RINVPARLEN: _BUG,
    Status.RMISSINGOPTPARAM: _BUG,
    Status.RINVOPTPARAMVAL: _BUG,
    Status.RDELIVERYFAILURE: StatusRule(Verdict.PERMANENT, ReasonCode.RECIPIENT_NOT_REACHABLE),
    Status.RUNKNOWNERR: StatusRule(Verdict.RETRY, ReasonCode.UNKNOWN, max_tries=2),
    Status.RSERTYPUNAUTH: _NOT_ALLOWED,
    Status.RPROHIBITED: _NOT_ALLOWED,
    Status.RSERTYPUNAVAIL: StatusRule(Verdict.RETRY, ReasonCode.NO_PERMISSION),
    Status.RSERTYPDENIED: _NOT_ALLOWED,
    Status.RINVDCS: _BUG,
}

#: Bind statuses that mean our credentials are wrong: tried again at most once a minute (1.2.1).
BAD_CREDENTIALS: Final = frozenset({Status.RBINDFAIL, Status.RINVPASWD, Status.RINVSYSID})


def status_name(status: int) -> str:
    """A command_status in the words of the specification: `ESME_RTHROTTLED`, or its number."""
    try:
        return f"ESME_{Status(status).name}"
    except ValueError:
        return f"{status:#x}"


def rule_of(status: int) -> StatusRule:
    """What a non-zero command_status means."""
    return RULES.get(status, OTHER_STATUS)


def refusal(status: int, *, pause_seconds: float | None = None) -> Rejected | FailedForNow:
    """The outcome of a submit_sm refused with `status`. A throttled bind stops for `pause_seconds`."""
    rule = rule_of(status)
    reason = reported(rule.reason, status_name(status), channel_code=f"{status:#x}")
    match rule.verdict:
        case Verdict.PERMANENT:
            return Rejected(reason)
        case Verdict.CONFIG:
            return Rejected(reason, misconfigured=True)
        case Verdict.RETRY:
            return FailedForNow(reason, rule.retry_after_seconds, max_tries=rule.max_tries)
        case Verdict.THROTTLED:
            return FailedForNow(reason, pause_seconds, throttled=True)


class ErrorTable(StrEnum):
    """Whose error numbers an SMSC puts into receipts: a fact of the account."""

    SINCH = "sinch"
    #: Nobody's we know: errors are quoted, not understood.
    NONE = "none"


#: First and last error number and what it means, for a message that was UNDELIV.
_SINCH_ERRORS: Final = (
    (1, 13, ReasonCode.CHANNEL_REJECT),  # routing
    (15, 16, ReasonCode.DELIVERY_REJECTED_DUE_TO_POLICY),  # screening
    (40, 40, ReasonCode.CHANNEL_FAILURE),  # internal, temporary
    (50, 52, ReasonCode.CHANNEL_FAILURE),
    (56, 56, ReasonCode.CHANNEL_FAILURE),
    (60, 67, ReasonCode.DELIVERY_REJECTED_DUE_TO_POLICY),  # sender, recipient, keyword blocked, quota
    (70, 71, ReasonCode.CHANNEL_FAILURE),
    (73, 76, ReasonCode.CHANNEL_FAILURE),
    (100, 100, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),  # unknown subscriber
    (107, 107, ReasonCode.CHANNEL_FAILURE),  # congestion
    (150, 150, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),  # unknown subscriber
    (151, 153, ReasonCode.RECIPIENT_NOT_REACHABLE),  # call barred, no SMS service, absent
    (158, 159, ReasonCode.RECIPIENT_NOT_REACHABLE),  # memory full, absent
    (201, 206, ReasonCode.RECIPIENT_NOT_REACHABLE),  # absent, busy, no service, illegal, blocked handset
    (210, 210, ReasonCode.RECIPIENT_NOT_REACHABLE),  # memory full
    (250, 257, ReasonCode.RECIPIENT_NOT_OPTED_IN),  # personal barring
    (300, 304, ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),  # bad destination
    (310, 312, ReasonCode.CHANNEL_BAD_CONFIGURATION),  # bad source
    (330, 349, ReasonCode.BAD_REQUEST),  # malformed request
    (360, 360, ReasonCode.RATE_LIMITED),  # queue full
)

SINCH_ERRORS: Final[Mapping[int, ReasonCode]] = {
    error: reason for first, last, reason in _SINCH_ERRORS for error in range(first, last + 1)
}

_FAILED: Final[Mapping[MessageState, ReasonCode]] = {
    MessageState.EXPIRED: ReasonCode.DELIVERY_TIMED_OUT,
    MessageState.DELETED: ReasonCode.CHANNEL_REJECT,
    MessageState.UNDELIVERABLE: ReasonCode.RECIPIENT_NOT_REACHABLE,
    MessageState.REJECTED: ReasonCode.CHANNEL_REJECT,
    MessageState.SKIPPED: ReasonCode.CHANNEL_REJECT,
}


def receipt_status(
    receipt: Receipt, table: ErrorTable, *, accepted_is_delivered: bool = False
) -> tuple[MessageStatus, Reason | None] | None:
    """What a receipt says of its message; None while that is nothing final (ENROUTE, UNKNOWN …)."""
    state = receipt.state
    if state is MessageState.DELIVERED or (state is MessageState.ACCEPTED and accepted_is_delivered):
        return MessageStatus.DELIVERED, None
    if state is None or state not in _FAILED:
        return None
    code = _FAILED[state]
    if state is MessageState.UNDELIVERABLE:
        code = _meaning(receipt.error, table) or code
    words = f"{state.name} err:{receipt.error}" if receipt.error else state.name
    return MessageStatus.FAILED, reported(code, words, channel_code=receipt.error)


def _meaning(error: str, table: ErrorTable) -> ReasonCode | None:
    if table is ErrorTable.NONE or not (error.isascii() and error.isdigit()):
        return None
    return SINCH_ERRORS.get(int(error))
