"""The SMSC itself: accounts, submits, receipts, inbound messages (channel-providers 1.2)."""

import asyncio
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from random import Random
from typing import Final

from msgspec import Struct, field

from switchboard_channels.sms.codes import status_name
from switchboard_channels.sms.concat import LongMessages, UserData, user_data, wire_parts
from switchboard_channels.sms.encoding import Alphabet, DataCoding, DefaultAlphabet, decode, segment
from switchboard_channels.sms.pdu import (
    CancelSm,
    CancelSmResp,
    DataSm,
    DataSmResp,
    DeliverSm,
    Destination,
    QuerySm,
    QuerySmResp,
    ReplaceSm,
    ReplaceSmResp,
    Status,
    SubmitMulti,
    SubmitMultiResp,
    SubmitSm,
    SubmitSmResp,
    Tag,
    Tlvs,
)
from switchboard_channels.sms.receipt import MessageState
from switchboard_simulator.faults import FaultBook
from switchboard_simulator.journal import Journal, Submission
from switchboard_simulator.phones import Phones, now
from switchboard_simulator.smsc.behaviour import (
    ORDINARY,
    UNTAKEN,
    Answering,
    Behaviour,
    Report,
    SmscRules,
    of_fault,
)
from switchboard_simulator.smsc.magic import MagicNumbers
from switchboard_simulator.smsc.peer import Bind, Peer, Request
from switchboard_simulator.smsc.screen import CHANNEL, Coming, Screen

#: Accepted messages remembered for receipts asked for by hand, query_sm and cancel_sm.
_KEPT: Final = 50_000
#: Deliveries that wait for a receiver, per account.
_WAITING: Final = 50_000

_STATES: Final = {
    "SCHEDULED": MessageState.SCHEDULED, "ENROUTE": MessageState.ENROUTE, "DELIVRD": MessageState.DELIVERED,
    "EXPIRED": MessageState.EXPIRED, "DELETED": MessageState.DELETED, "UNDELIV": MessageState.UNDELIVERABLE,
    "ACCEPTD": MessageState.ACCEPTED, "UNKNOWN": MessageState.UNKNOWN, "REJECTD": MessageState.REJECTED,
    "SKIPPED": MessageState.SKIPPED,
}  # fmt: skip


class IdForm(StrEnum):
    """How message ids are spelled."""

    HEX = "hex"
    UPPER_HEX = "upper_hex"
    DECIMAL = "decimal"
    #: Decimal with leading zeros.
    PADDED = "padded"


class ReceiptForm(StrEnum):
    """Where a receipt says what it says."""

    TEXT = "text"
    TLVS = "tlvs"
    BOTH = "both"


class Login(Struct, frozen=True):
    """An account of the SMSC."""

    password: str
    max_binds: int = 2

    def __repr__(self) -> str:
        return f"Login(max_binds={self.max_binds})"


class SmscSettings(Struct, frozen=True, kw_only=True):
    """What kind of SMSC this is."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    #: Who may bind, by system_id. Empty: everybody, with any password.
    logins: Mapping[str, Login] = field(default_factory=dict)
    #: Binds per system_id where `logins` says nothing.
    max_binds: int = 10
    answer_ids: IdForm = IdForm.HEX
    receipt_ids: IdForm = IdForm.HEX
    receipt_form: ReceiptForm = ReceiptForm.BOTH
    default_alphabet: DefaultAlphabet = DefaultAlphabet.GSM7
    #: Submits a second one bind may make before it is throttled; None: any number.
    messages_per_second: float | None = None
    #: How long the network takes to deliver.
    delivery_seconds: float = 0.0
    #: Network code in receipts and inbound messages; "" for none.
    operator: str = "24001"
    #: Unanswered deliveries a receiver may have, and how long it has to answer one.
    delivery_window: int = 100
    delivery_timeout_seconds: float = 30.0
    #: When a delivery that was refused or not answered is made again, and how often it is tried.
    redelivery_seconds: float = 1.0
    delivery_tries: int = 100


class UnknownMessage(LookupError):
    """No message of that id was taken, or it is forgotten."""


class NobodyBound(LookupError):
    """No account is known that could take an inbound message."""


class _Taken(Struct):
    """A message the SMSC took."""

    number: int
    account: str
    body: SubmitSm
    data: UserData
    text: str
    at: datetime
    peer: Peer
    state: MessageState = MessageState.ENROUTE


class _Delivery(Struct):
    """A deliver_sm on its way to an account."""

    body: DeliverSm
    tries: int = 0


class Smsc:
    """A server on a free port of the loopback. Everything it does is bounded, and it forgets the oldest first."""

    def __init__(
        self,
        settings: SmscSettings,
        phones: Phones,
        journal: Journal,
        *,
        faults: FaultBook | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._faults = faults or FaultBook()
        self._clock = clock
        self._screen = Screen(phones, settings.default_alphabet)
        self._magic = MagicNumbers()
        self._server: asyncio.Server | None = None
        self._taken: OrderedDict[int, _Taken] = OrderedDict()
        self._waiting: dict[str, deque[_Delivery]] = {}
        self._account_of: OrderedDict[str, str] = OrderedDict()
        self._timers: set[asyncio.TimerHandle] = set()
        self._rates: dict[Peer, tuple[float, int]] = {}
        # Ids stay unique over restarts of the simulator.
        self._number = time.time_ns() // 1_000_000 << 12
        self._reference = Random(self._number)
        #: Rules that tests add; they win over faults of the control API and magic numbers.
        self.rules = SmscRules()
        #: Every connection there is.
        self.peers: list[Peer] = []
        #: When true, nobody is let in: a bind is answered with this command_status.
        self.refuse_binds_with = 0
        #: The port it listens on, once started.
        self.port = 0
        self.submits_seen = 0
        self.deliveries_done = 0

    async def start(self) -> int:
        """Listen; returns the port. Started again after `stop`, it takes the same port if it can."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._peer, settings.host, self.port or settings.port, ssl=settings.tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Stop listening and cut every connection. What was taken stays known."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        peers = list(self.peers)
        for peer in peers:
            peer.cut()
        await asyncio.gather(*(peer.closed.wait() for peer in peers))

    def reset(self) -> None:
        """Forget rules, once-only magic and unfinished messages."""
        self.rules.clear()
        self._magic.clear()
        self._screen.clear()

    def bound(self, system_id: str | None = None) -> list[Peer]:
        """The connections that are bound, of one account or of all."""
        return [peer for peer in self.peers if peer.is_bound and system_id in (None, peer.system_id)]

    # -- what people and operators do

    def say(
        self,
        sender: str,
        to: str,
        text: str,
        *,
        account: str = "",
        times: int = 1,
        long_messages: LongMessages = LongMessages.UDH,
        order: Callable[[list[DeliverSm]], list[DeliverSm]] = list,
    ) -> str:
        """Let a person write to one of our numbers; returns the id of the message on the phone.

        `account` says who gets it; "" is whoever sent from that number, else whoever is bound. `times` delivers
        each part so often, `order` changes the order of parts. Raises NobodyBound.
        """
        account = account or self._account_of.get(to, "") or next((p.system_id for p in self.bound()), "")
        if not account:
            raise NobodyBound("no account has sent from that number, and none is bound")
        at = self._clock()
        message_id = self._spell(self._next_number(), self._settings.answer_ids)
        self._screen.wrote(sender, to, text, message_id, at)
        for body in order(self._inbound(sender, to, text, long_messages)):
            for _ in range(times):
                self._queue(account, _Delivery(body))
        return message_id

    def report(self, provider_id: str, stat: str, error: str = "000") -> None:
        """Report on a message by hand, whatever was reported before. Raises UnknownMessage or ValueError."""
        if stat not in _STATES:
            raise ValueError(f"stat is expected to be one of {', '.join(_STATES)}")
        self._report(self._find(provider_id), Report(stat, error))

    # -- what connections ask

    def on_connected(self, peer: Peer) -> None:
        self.peers.append(peer)

    def on_bind(self, peer: Peer, bind: Bind) -> int:
        if self.refuse_binds_with:
            return self.refuse_binds_with
        logins = self._settings.logins
        login = logins.get(bind.system_id)
        if logins and login is None:
            return Status.RINVSYSID
        if login is not None and login.password != bind.password:
            return Status.RINVPASWD
        most = login.max_binds if login is not None else self._settings.max_binds
        return Status.RALYBND if len(self.bound(bind.system_id)) >= most else Status.ROK

    def on_gone(self, peer: Peer) -> None:
        if peer in self.peers:
            self.peers.remove(peer)
        self._rates.pop(peer, None)

    def on_room(self, peer: Peer) -> None:
        self._drain(peer.system_id)

    def on_request(self, peer: Peer, sequence: int, body: Request) -> None:
        match body:
            case SubmitSm():
                self._on_submit(peer, sequence, body)
            case SubmitMulti():
                self._on_multi(peer, sequence, body)
            case DataSm():
                taken = self._take(peer, _as_submit(body))
                self._schedule(taken, ORDINARY)
                peer.answer(DataSmResp(self._spell(taken.number, self._settings.answer_ids)), sequence)
            case QuerySm():
                self._on_query(peer, sequence, body)
            case CancelSm():
                self._on_cancel(peer, sequence, body)
            case ReplaceSm():
                peer.answer(ReplaceSmResp(), sequence, Status.RREPLACEFAIL)

    # -- submits

    def _on_submit(self, peer: Peer, sequence: int, body: SubmitSm) -> None:
        self.submits_seen += 1
        data = user_data(body.esm_class, body.text_octets, body.tlvs)
        behaviour = self._behaviour(peer, body, data)
        if behaviour.status or behaviour.answering in UNTAKEN:
            self._log(peer, body, data, behaviour, "")
            self._answer_later(peer, sequence, behaviour, "")
            return
        taken = self._take(peer, body)
        provider_id = self._spell(taken.number, self._settings.answer_ids)
        self._log(peer, body, data, behaviour, provider_id)
        if behaviour.receipt_first:
            self._schedule(taken, behaviour)
            self._answer_later(peer, sequence, behaviour, provider_id)
        else:
            self._answer_later(peer, sequence, behaviour, provider_id)
            # The receipt follows the answer onto the wire, unless the answer takes its time.
            self._schedule(taken, behaviour)

    def _behaviour(self, peer: Peer, body: SubmitSm, data: UserData) -> Behaviour:
        if self._is_too_fast(peer):
            return Behaviour(status=Status.RTHROTTLED, name="rate")
        recipient = body.destination_addr
        found = self.rules.take(recipient)
        if found is None and (fault := self._faults.take(CHANNEL, recipient, "submit_sm")):
            found = of_fault(fault)
        if found is None:
            found = self._magic.behaviour(recipient, data.octets)
        return (found or ORDINARY).for_part(data.part.number if data.part else 1)

    def _is_too_fast(self, peer: Peer) -> bool:
        most = self._settings.messages_per_second
        if most is None:
            return False
        second = time.monotonic()
        began, count = self._rates.get(peer, (second, 0))
        if second - began >= 1.0:
            began, count = second, 0
        self._rates[peer] = (began, count + 1)
        return count >= most

    def _take(self, peer: Peer, body: SubmitSm) -> _Taken:
        data = user_data(body.esm_class, body.text_octets, body.tlvs)
        text = decode(body.data_coding, data.octets, self._settings.default_alphabet)
        taken = _Taken(
            self._next_number(), peer.system_id, body, data, data.octets.hex() if text is None else text,
            self._clock(), peer,
        )  # fmt: skip
        self._taken[taken.number] = taken
        if len(self._taken) > _KEPT:
            self._taken.popitem(last=False)
        self._account_of[body.source_addr] = peer.system_id
        if len(self._account_of) > _KEPT:
            self._account_of.popitem(last=False)
        return taken

    def _log(self, peer: Peer, body: SubmitSm, data: UserData, behaviour: Behaviour, provider_id: str) -> None:
        text = decode(body.data_coding, data.octets, self._settings.default_alphabet)
        part = data.part
        self._journal.append(
            Submission(
                at=self._clock(),
                channel=CHANNEL,
                account=peer.system_id,
                operation=f"submit_sm {part.number}/{part.total}" if part else "submit_sm",
                recipient=body.destination_addr,
                text=data.octets.hex() if text is None else text,
                accepted=bool(provider_id),
                provider_id=provider_id,
                answer=_answer_name(behaviour),
                reference=body.tlvs.get(Tag.USER_MESSAGE_REFERENCE, b"").hex(),
                fault=behaviour.name,
            )
        )

    def _answer_later(self, peer: Peer, sequence: int, behaviour: Behaviour, provider_id: str) -> None:
        if behaviour.delay_seconds:
            self._after(behaviour.delay_seconds, lambda: self._answer(peer, sequence, behaviour, provider_id))
        else:
            self._answer(peer, sequence, behaviour, provider_id)

    def _answer(self, peer: Peer, sequence: int, behaviour: Behaviour, provider_id: str) -> None:
        match behaviour.answering:
            case Answering.GIVEN:
                peer.answer(SubmitSmResp(provider_id), sequence, behaviour.status)
            case Answering.SWALLOWED | Answering.WITHHELD:
                pass
            case Answering.CUT_BEFORE | Answering.CUT_AFTER:
                peer.cut()
            case Answering.GARBLED:
                peer.write(b"<html>502 Bad Gateway</html>")

    def _on_multi(self, peer: Peer, sequence: int, body: SubmitMulti) -> None:
        first = ""
        for destination in body.destinations:
            if isinstance(destination, Destination):
                taken = self._take(peer, _single(body, destination))
                self._schedule(taken, ORDINARY)
                first = first or self._spell(taken.number, self._settings.answer_ids)
        status = Status.ROK if first else Status.RINVDLNAME
        peer.answer(SubmitMultiResp(first), sequence, status)

    def _on_query(self, peer: Peer, sequence: int, body: QuerySm) -> None:
        try:
            taken = self._find(body.message_id)
        except UnknownMessage:
            peer.answer(QuerySmResp(), sequence, Status.RQUERYFAIL)
        else:
            peer.answer(QuerySmResp(body.message_id, "", taken.state, 0), sequence)

    def _on_cancel(self, peer: Peer, sequence: int, body: CancelSm) -> None:
        try:
            taken = self._find(body.message_id)
        except UnknownMessage:
            peer.answer(CancelSmResp(), sequence, Status.RINVMSGID)
            return
        can = taken.state is MessageState.ENROUTE
        if can:
            taken.state = MessageState.DELETED
        peer.answer(CancelSmResp(), sequence, Status.ROK if can else Status.RCANCELFAIL)

    # -- receipts

    def _schedule(self, taken: _Taken, behaviour: Behaviour) -> None:
        """Let the message reach its phone, and report what the behaviour says."""
        delay = 0.0 if behaviour.receipt_first else self._settings.delivery_seconds
        if any(report.stat in ("DELIVRD", "ACCEPTD") for report in behaviour.reports):
            self._after(delay, lambda: self._show(taken))
        for report in behaviour.reports:
            self._after(delay + report.delay_seconds, partial(self._report, taken, report))

    def _show(self, taken: _Taken) -> None:
        body = taken.body
        if taken.state is not MessageState.DELETED:
            provider_id = self._spell(taken.number, self._settings.answer_ids)
            self._screen.show(
                Coming(body.destination_addr, body.source_addr, body.data_coding, taken.data, provider_id),
                self._clock(),
            )

    def _report(self, taken: _Taken, report: Report) -> None:
        taken.state = _STATES[report.stat]
        self._screen.report(
            taken.body.destination_addr, self._spell(taken.number, self._settings.answer_ids), report.stat
        )
        if taken.body.registered_delivery & 0x03:
            self._queue(taken.account, _Delivery(self._receipt(taken, report)), taken.peer)

    def _receipt(self, taken: _Taken, report: Report) -> DeliverSm:
        settings, body = self._settings, taken.body
        message_id = self._spell(taken.number, settings.receipt_ids)
        text = b""
        tlvs: dict[int, bytes] = {}
        if settings.receipt_form is not ReceiptForm.TLVS:
            done = f"{self._clock():%y%m%d%H%M}"
            start = taken.text[:20].encode("ascii", "replace").decode()
            text = (
                f"id:{message_id} sub:001 dlvrd:{int(report.stat == 'DELIVRD'):03} "
                f"submit date:{taken.at:%y%m%d%H%M} done date:{done} "
                f"stat:{report.stat} err:{report.error} text:{start}"
            ).encode()
        if settings.receipt_form is not ReceiptForm.TEXT:
            tlvs[Tag.RECEIPTED_MESSAGE_ID] = message_id.encode() + b"\0"
            tlvs[Tag.MESSAGE_STATE] = bytes((_STATES[report.stat],))
            if report.error.isdigit() and int(report.error):
                tlvs[Tag.NETWORK_ERROR_CODE] = b"\x03" + int(report.error).to_bytes(2, "big")
        if settings.operator:
            tlvs[Tag.MCCMNC] = settings.operator.encode() + b"\0"
        if reference := body.tlvs.get(Tag.USER_MESSAGE_REFERENCE):
            tlvs[Tag.USER_MESSAGE_REFERENCE] = reference
        return DeliverSm(
            source_addr_ton=body.dest_addr_ton,
            source_addr_npi=body.dest_addr_npi,
            source_addr=body.destination_addr,
            dest_addr_ton=body.source_addr_ton,
            dest_addr_npi=body.source_addr_npi,
            destination_addr=body.source_addr,
            esm_class=0x20 if report.stat in ("ENROUTE", "SCHEDULED") else 0x04,
            short_message=text,
            tlvs=tlvs,
        )

    # -- deliveries

    def _queue(self, account: str, delivery: _Delivery, preferred: Peer | None = None) -> None:
        waiting = self._waiting.setdefault(account, deque())
        if preferred is not None and not waiting and preferred.has_room:
            self._deliver(account, delivery, preferred)
            return
        if len(waiting) < _WAITING:
            waiting.append(delivery)
        self._drain(account)

    def _drain(self, account: str) -> None:
        waiting = self._waiting.get(account)
        while waiting:
            peer = next((peer for peer in self.bound(account) if peer.has_room), None)
            if peer is None:
                return
            self._deliver(account, waiting.popleft(), peer)

    def _deliver(self, account: str, delivery: _Delivery, peer: Peer) -> None:
        delivery.tries += 1

        def answered(status: int | None) -> None:
            if status == Status.ROK:
                self.deliveries_done += 1
            elif delivery.tries < self._settings.delivery_tries:
                self._after(self._settings.redelivery_seconds, lambda: self._queue(account, delivery))

        peer.deliver(delivery.body, answered)

    def _inbound(self, sender: str, to: str, text: str, way: LongMessages) -> list[DeliverSm]:
        segmentation = segment(text, default_alphabet=self._settings.default_alphabet)
        coding = DataCoding.DEFAULT if segmentation.alphabet is Alphabet.GSM7 else DataCoding.UCS2
        operator: Tlvs = {Tag.MCCMNC: self._settings.operator.encode() + b"\0"} if self._settings.operator else {}
        return [
            DeliverSm(
                source_addr_ton=1,
                source_addr_npi=1,
                source_addr=sender,
                dest_addr_ton=1,
                dest_addr_npi=1,
                destination_addr=to,
                esm_class=part.esm_class,
                data_coding=coding,
                short_message=part.short_message,
                tlvs={**part.tlvs, **operator},
            )
            for part in wire_parts(segmentation.parts, way, self._reference.randrange(0x10000))
        ]

    # -- small things

    def _peer(self) -> Peer:
        settings = self._settings
        return Peer(
            self,
            delivery_window=settings.delivery_window,
            answer_timeout_seconds=settings.delivery_timeout_seconds,
        )

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _spell(self, number: int, form: IdForm) -> str:
        match form:
            case IdForm.HEX:
                return f"{number:x}"
            case IdForm.UPPER_HEX:
                return f"{number:X}"
            case IdForm.DECIMAL:
                return str(number)
            case IdForm.PADDED:
                return f"{number:020}"

    def _find(self, provider_id: str) -> _Taken:
        base = 16 if self._settings.answer_ids in (IdForm.HEX, IdForm.UPPER_HEX) else 10
        try:
            return self._taken[int(provider_id, base)]
        except (ValueError, KeyError):
            raise UnknownMessage(f"no message {provider_id!r} was taken, or it is forgotten") from None

    def _after(self, delay_seconds: float, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.discard(timer)
            work()

        timer = loop.call_later(delay_seconds, run)
        self._timers.add(timer)


def _answer_name(behaviour: Behaviour) -> str:
    match behaviour.answering:
        case Answering.GIVEN:
            return status_name(behaviour.status)
        case Answering.SWALLOWED | Answering.WITHHELD:
            return "none"
        case Answering.CUT_BEFORE | Answering.CUT_AFTER:
            return "cut"
        case Answering.GARBLED:
            return "garbled"


def _as_submit(body: DataSm) -> SubmitSm:
    return SubmitSm(
        body.service_type, body.source_addr_ton, body.source_addr_npi, body.source_addr, body.dest_addr_ton,
        body.dest_addr_npi, body.destination_addr, body.esm_class,
        registered_delivery=body.registered_delivery, data_coding=body.data_coding, tlvs=body.tlvs,
    )  # fmt: skip


def _single(body: SubmitMulti, destination: Destination) -> SubmitSm:
    return SubmitSm(
        body.service_type, body.source_addr_ton, body.source_addr_npi, body.source_addr, destination.ton,
        destination.npi, destination.address, body.esm_class, registered_delivery=body.registered_delivery,
        data_coding=body.data_coding, short_message=body.short_message, tlvs=body.tlvs,
    )  # fmt: skip
