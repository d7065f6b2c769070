"""How the SMSC treats a submit: what it answers, when, and what it reports afterwards."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct, structs

from switchboard_channels.sms.pdu import Status
from switchboard_simulator.faults import Fault, FaultKind


class Answering(StrEnum):
    """What becomes of the answer to a submit."""

    #: It is given.
    GIVEN = "given"
    #: Nothing is taken and nothing is answered.
    SWALLOWED = "swallowed"
    #: The message is taken and nothing is answered.
    WITHHELD = "withheld"
    #: Nothing is taken and the connection is cut.
    CUT_BEFORE = "cut_before"
    #: The message is taken and the connection is cut.
    CUT_AFTER = "cut_after"
    #: The message is taken and what is answered is no PDU.
    GARBLED = "garbled"


#: Answerings that mean: the SMSC does not have the message.
UNTAKEN: Final = frozenset({Answering.SWALLOWED, Answering.CUT_BEFORE})


class Report(Struct, frozen=True):
    """One receipt."""

    #: The word of the text form: DELIVRD, UNDELIV, EXPIRED …
    stat: str = "DELIVRD"
    error: str = "000"
    #: Counted from the acceptance.
    delay_seconds: float = 0.0


DELIVERED: Final = Report()
#: How much later than usual a receipt is, where a fault does not say.
LATE_SECONDS: Final = 5.0
#: How long after its receipt an answer comes, where a fault does not say.
EARLY_SECONDS: Final = 0.2
#: The vendor's error of a phone that is off.
ABSENT: Final = 153


class Behaviour(Struct, frozen=True, kw_only=True):
    """One way to treat a submit. The default one is what a good SMSC does."""

    #: command_status of the answer; not 0 refuses.
    status: int = 0
    #: Only this part of a long message meets the refusal or the answering; None: every one.
    part: int | None = None
    answering: Answering = Answering.GIVEN
    #: How long the answer takes.
    delay_seconds: float = 0.0
    #: What is reported, in this order; empty: silence, and the phone never gets the message.
    reports: tuple[Report, ...] = (DELIVERED,)
    #: The receipt goes out before the answer does.
    receipt_first: bool = False
    #: What this is called in the log of submissions; "" is the ordinary path.
    name: str = ""

    def for_part(self, number: int) -> "Behaviour":
        """What the part `number` meets."""
        if self.part is None or self.part == number:
            return self
        return structs.replace(self, status=0, answering=Answering.GIVEN, delay_seconds=0.0, name="")


ORDINARY: Final = Behaviour()


class SmscRule(Struct, frozen=True, kw_only=True):
    """A behaviour, whom it meets and how often."""

    behaviour: Behaviour
    #: The exact number, or "*" for all.
    recipient: str = "*"
    #: How many submits it still meets; None: until it is removed.
    count: int | None = 1
    #: How many submits pass before.
    skip: int = 0


class SmscRules:
    """The rules in force, oldest first; rules that are used up leave by themselves."""

    def __init__(self, limit: int = 1_000) -> None:
        self._rules: dict[int, SmscRule] = {}
        self._next = 1
        self._limit = limit

    def __iter__(self) -> Iterator[tuple[int, SmscRule]]:
        return iter(list(self._rules.items()))

    def add(self, behaviour: Behaviour, recipient: str = "*", *, count: int | None = 1, skip: int = 0) -> int:
        """Put a rule in force; returns its number. Raises ValueError when there are too many."""
        if len(self._rules) >= self._limit:
            raise ValueError(f"at most {self._limit} rules are kept")
        number, self._next = self._next, self._next + 1
        self._rules[number] = SmscRule(behaviour=behaviour, recipient=recipient, count=count, skip=skip)
        return number

    def remove(self, number: int) -> bool:
        """Take a rule out of force. False if there is none of that number."""
        return self._rules.pop(number, None) is not None

    def clear(self) -> None:
        """Take every rule out of force."""
        self._rules.clear()

    def take(self, recipient: str) -> Behaviour | None:
        """The behaviour this submit meets, counted as used; None when no rule is for it."""
        for number, rule in self._rules.items():
            if rule.recipient not in ("*", recipient):
                continue
            if rule.skip:
                self._rules[number] = structs.replace(rule, skip=rule.skip - 1)
                continue
            if rule.count == 1:
                del self._rules[number]
            elif rule.count is not None:
                self._rules[number] = structs.replace(rule, count=rule.count - 1)
            return rule.behaviour
        return None


def of_fault(fault: Fault) -> Behaviour:
    """What a fault of the control API is on SMPP. `code` is a command_status where the kind refuses."""
    name, delay = fault.kind.value, fault.delay_seconds
    match fault.kind:
        case FaultKind.REJECT:
            return Behaviour(status=fault.code or Status.RINVDSTADR, delay_seconds=delay, name=name)
        case FaultKind.SERVER_ERROR:
            return Behaviour(status=fault.code or Status.RSYSERR, delay_seconds=delay, name=name)
        case FaultKind.THROTTLE:
            return Behaviour(status=Status.RTHROTTLED, delay_seconds=delay, name=name)
        case FaultKind.TIMEOUT_BEFORE_ACCEPT:
            return Behaviour(answering=Answering.SWALLOWED, name=name)
        case FaultKind.TIMEOUT_AFTER_ACCEPT:
            return Behaviour(answering=Answering.WITHHELD, name=name)
        case FaultKind.CUT_BEFORE_ACCEPT:
            return Behaviour(answering=Answering.CUT_BEFORE, delay_seconds=delay, name=name)
        case FaultKind.CUT_AFTER_ACCEPT:
            return Behaviour(answering=Answering.CUT_AFTER, delay_seconds=delay, name=name)
        case FaultKind.SLOW:
            return Behaviour(delay_seconds=delay or 2.0, name=name)
        case FaultKind.SILENCE:
            return Behaviour(reports=(), delay_seconds=delay, name=name)
        case FaultKind.GARBAGE:
            return Behaviour(answering=Answering.GARBLED, delay_seconds=delay, name=name)
        case FaultKind.DUPLICATE:
            return Behaviour(reports=(DELIVERED, DELIVERED), delay_seconds=delay, name=name)
        case FaultKind.RECEIPT_LATE:
            return Behaviour(reports=(Report(delay_seconds=delay or LATE_SECONDS),), name=name)
        case FaultKind.RECEIPT_EARLY:
            return Behaviour(receipt_first=True, delay_seconds=delay or EARLY_SECONDS, name=name)
        case FaultKind.RECEIPT_FAILED:
            error = f"{fault.code or ABSENT:03}"
            return Behaviour(reports=(Report("UNDELIV", error),), delay_seconds=delay, name=name)
        case FaultKind.RECEIPT_EXPIRED:
            return Behaviour(reports=(Report("EXPIRED"),), delay_seconds=delay, name=name)
