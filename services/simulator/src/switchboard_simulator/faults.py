"""Faults on demand: which provider misbehaves, for whom, how, and how often.

A fault comes from a rule set through the control API or from a magic recipient (each channel's `magic.py`).
Rules win. What a fault does on the wire is each provider's own business.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct, structs

from switchboard.ids import mint


class FaultKind(StrEnum):
    """What goes wrong. `accept` means: logged as accepted, shown on the phone."""

    #: The provider refuses with `code` and `description`.
    REJECT = "reject"
    #: The provider breaks: a 5xx (`code`, 500 unless given).
    SERVER_ERROR = "server_error"
    #: Too many requests: try again after `retry_after_seconds`.
    THROTTLE = "throttle"
    #: The request is read, nothing is accepted, no answer comes.
    TIMEOUT_BEFORE_ACCEPT = "timeout_before_accept"
    #: The request is accepted, no answer comes.
    TIMEOUT_AFTER_ACCEPT = "timeout_after_accept"
    #: The connection is reset before anything is accepted.
    CUT_BEFORE_ACCEPT = "cut_before_accept"
    #: The request is accepted, then the connection is reset.
    CUT_AFTER_ACCEPT = "cut_after_accept"
    #: Accepted and answered, `delay_seconds` late.
    SLOW = "slow"
    #: Accepted and answered, but the phone never gets it and nothing more is heard.
    SILENCE = "silence"
    #: Accepted, but what is answered is no answer of this provider: a proxy's HTML page with status 200.
    GARBAGE = "garbage"
    #: Accepted; everything this recipient sends is delivered twice to us.
    DUPLICATE = "duplicate"
    #: Accepted and answered; the receipt comes `delay_seconds` later.
    RECEIPT_LATE = "receipt_late"
    #: Accepted; the receipt comes before the answer.
    RECEIPT_EARLY = "receipt_early"
    #: Accepted and answered, then reported as not delivered, with `code` as the provider's error.
    RECEIPT_FAILED = "receipt_failed"
    #: Accepted and answered, then reported as expired.
    RECEIPT_EXPIRED = "receipt_expired"


#: What only a channel that reports delivery can do.
OF_RECEIPTS: Final = frozenset(
    {FaultKind.RECEIPT_LATE, FaultKind.RECEIPT_EARLY, FaultKind.RECEIPT_FAILED, FaultKind.RECEIPT_EXPIRED}
)


class Fault(Struct, frozen=True, kw_only=True):
    """One way to misbehave."""

    kind: FaultKind
    #: The provider's own code: an HTTP status on TELEGRAM. 0: the usual one of the kind.
    code: int = 0
    #: The provider's own words. "": the usual ones of the code.
    description: str = ""
    #: How long the provider thinks before any of it.
    delay_seconds: float = 0.0
    retry_after_seconds: int = 1
    #: TELEGRAM's `migrate_to_chat_id` in the parameters of a refusal.
    migrate_to: int | None = None


class FaultRule(Struct, frozen=True, kw_only=True):
    """A fault, whom it meets and how often."""

    fault: Fault
    #: The channel, as the API spells it.
    channel: str
    #: The exact recipient, or "*" for all.
    recipient: str = "*"
    #: The operation (`sendMessage`), or "*" for all that send.
    operation: str = "*"
    #: How many requests it still meets; None: until it is removed.
    count: int | None = 1
    #: How many requests pass unharmed before.
    skip: int = 0
    id: str = ""

    def meets(self, channel: str, recipient: str, operation: str, is_send: bool) -> bool:
        """Tell whether a request is one of those this rule is for. "*" means operations that send."""
        return (
            self.channel == channel
            and self.recipient in ("*", recipient)
            and (self.operation == operation or (self.operation == "*" and is_send))
            and self.count != 0
        )


class FaultBook:
    """The rules in force, oldest first. Rules that are used up leave by themselves."""

    def __init__(self, limit: int = 1000) -> None:
        self._rules: dict[str, FaultRule] = {}
        self._limit = limit

    def __iter__(self) -> Iterator[FaultRule]:
        return iter(self._rules.values())

    def add(self, rule: FaultRule) -> FaultRule:
        """Put a rule in force. Raises ValueError when there are too many already."""
        if len(self._rules) >= self._limit:
            raise ValueError(f"at most {self._limit} fault rules are kept")
        kept = structs.replace(rule, id=rule.id or mint())
        self._rules[kept.id] = kept
        return kept

    def remove(self, rule_id: str) -> bool:
        """Take a rule out of force. False if there is none of that id."""
        return self._rules.pop(rule_id, None) is not None

    def clear(self) -> None:
        """Take every rule out of force."""
        self._rules.clear()

    def take(self, channel: str, recipient: str, operation: str, *, is_send: bool = True) -> Fault | None:
        """The fault that meets this request, counted as used; None when it passes."""
        for rule in self._rules.values():
            if not rule.meets(channel, recipient, operation, is_send):
                continue
            if rule.skip:
                self._rules[rule.id] = structs.replace(rule, skip=rule.skip - 1)
                continue
            self._use(rule)
            return rule.fault
        return None

    def _use(self, rule: FaultRule) -> None:
        if rule.count is None:
            return
        if rule.count == 1:
            del self._rules[rule.id]
        else:
            self._rules[rule.id] = structs.replace(rule, count=rule.count - 1)
