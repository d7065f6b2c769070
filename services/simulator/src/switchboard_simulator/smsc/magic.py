"""Magic numbers: a recipient that ends in 99 and two digits always misbehaves in the same way.

`46701239918` is never delivered; neither is any other number ending in 9918. One table, shown by
`GET /control/magic` and in the reference.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from switchboard_channels.sms.pdu import Status
from switchboard_simulator.smsc.behaviour import DELIVERED, EARLY_SECONDS, LATE_SECONDS, Answering, Behaviour, Report


class Magic(Struct, frozen=True):
    """What one ending does."""

    ending: str
    does: str
    behaviour: Behaviour
    #: Only the first submit of each text meets it; the same text again passes.
    first_only: bool = False


def _magic(ending: str, does: str, *, first_only: bool = False, **behaviour: object) -> Magic:
    made = Behaviour(name=f"magic {ending}", **behaviour)  # type: ignore[arg-type]
    return Magic(ending, does, made, first_only)


MAGIC: Final[tuple[Magic, ...]] = (
    _magic("9901", "refused: no such number (0x0B)", status=Status.RINVDSTADR),
    _magic("9902", "refused (0x66)", status=Status.RX_R_APPN),
    _magic("9903", "refused: our sender is not allowed (0x0A)", status=Status.RINVSRCADR),
    _magic("9904", "system error (0x08) once, then taken", first_only=True, status=Status.RSYSERR),
    _magic("9905", "system error (0x08), always", status=Status.RSYSERR),
    _magic("9906", "throttled (0x58) once, then taken", first_only=True, status=Status.RTHROTTLED),
    _magic("9907", "queue full (0x14) once, then taken", first_only=True, status=Status.RMSGQFUL),
    _magic("9908", "queue full (0x14), always", status=Status.RMSGQFUL),
    _magic("9909", "not taken, no answer", answering=Answering.SWALLOWED),
    _magic("9910", "taken and delivered, no answer", answering=Answering.WITHHELD),
    _magic("9911", "taken, no answer, no receipt", answering=Answering.WITHHELD, reports=()),
    _magic("9912", "not taken, connection cut", answering=Answering.CUT_BEFORE),
    _magic("9913", "taken and delivered, connection cut", answering=Answering.CUT_AFTER),
    _magic("9914", "taken, no receipt", reports=()),
    _magic("9915", "delivered, receipt given twice", reports=(DELIVERED, DELIVERED)),
    _magic("9916", "delivered, receipt before the answer", receipt_first=True, delay_seconds=EARLY_SECONDS),
    _magic("9917", "delivered, receipt 5 s late", reports=(Report(delay_seconds=LATE_SECONDS),)),
    _magic("9918", "not delivered: absent (UNDELIV, err 153)", reports=(Report("UNDELIV", "153"),)),
    _magic("9919", "not delivered in time (EXPIRED)", reports=(Report("EXPIRED"),)),
    _magic("9920", "refused by the network (REJECTD)", reports=(Report("REJECTD"),)),
    _magic("9921", "second part refused (0x65)", status=Status.RX_P_APPN, part=2),
    _magic("9922", "second part fails for now (0x64)", status=Status.RX_T_APPN, part=2),
    _magic("9923", "second part taken, no answer", answering=Answering.WITHHELD, part=2),
    _magic("9924", "delivered, ENROUTE reported before", reports=(Report("ENROUTE"), DELIVERED)),
    _magic("9925", "fate unknown (UNKNOWN)", reports=(Report("UNKNOWN"),)),
    _magic("9926", "UNDELIV reported, then DELIVRD", reports=(Report("UNDELIV", "1a0"), DELIVERED)),
    _magic("9927", "answered after 2 s", delay_seconds=2.0),
    _magic("9928", "taken, the answer is no PDU", answering=Answering.GARBLED),
    _magic("9929", "the person opted out (UNDELIV, err 250)", reports=(Report("UNDELIV", "250"),)),
)

_BY_ENDING: Final = {magic.ending: magic for magic in MAGIC}


class MagicNumbers:
    """The table at work. Remembers what met a once-only ending, for so many texts."""

    def __init__(self, limit: int = 10_000) -> None:
        self._met: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._limit = limit

    def behaviour(self, recipient: str, content: bytes) -> Behaviour | None:
        """What a submit of this content to this number meets; None for an ordinary number."""
        magic = _BY_ENDING.get(recipient[-4:])
        if magic is None:
            return None
        if magic.first_only:
            if (recipient, content) in self._met:
                return None
            self._met[recipient, content] = None
            if len(self._met) > self._limit:
                self._met.popitem(last=False)
        return magic.behaviour

    def clear(self) -> None:
        """Forget what met a once-only ending."""
        self._met.clear()
