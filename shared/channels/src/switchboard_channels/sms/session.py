"""One session with an SMSC under a bind lease: connect, stay connected, send attempts, hand on what is heard.

Parts of one message go one after another, each once the SMSC took the one before: a refusal then leaves nothing
half said. Messages go side by side, as the window allows.
"""

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from switchboard.channel.contract import (
    Account,
    Attempt,
    BindLease,
    Exchange,
    Fact,
    InboundPart,
    SendResult,
    SessionHost,
)
from switchboard.channel.errors import Unsupported
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.reason import Reason, ReasonCode, reported
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.codes import BAD_CREDENTIALS, refusal, status_name
from switchboard_channels.sms.concat import References
from switchboard_channels.sms.inbound import Deliveries, Delivery, Nothing, put_together, read_delivery
from switchboard_channels.sms.link import (
    Answer,
    Answered,
    BindRefused,
    Link,
    NotWritten,
    SequenceNumber,
    Unanswered,
    connect,
)
from switchboard_channels.sms.manifest import SEND_TIMEOUT_SECONDS
from switchboard_channels.sms.pdu import (
    BindReceiver,
    BindTransceiver,
    BindTransmitter,
    DataSm,
    DataSmResp,
    DeliverSm,
    DeliverSmResp,
    Status,
    SubmitSm,
    Tag,
    UnwritableValue,
)
from switchboard_channels.sms.receipt import canonical_id
from switchboard_channels.sms.render import attempt_reference, needs_reference, reference_name, render, submits

log = logging.getLogger(__name__)

#: Deliveries that may wait to be made durable; beyond, the SMSC is asked to come again.
MAX_HEARD: Final = 1_000
#: Deliveries handed to the host at once.
BATCH: Final = 200
#: How long the host may take to make deliveries durable before the SMSC is asked to come again.
DURABLE_WITHIN_SECONDS: Final = 25.0

#: How long answers to what is written are still heard after the lease was lost. Nothing more is written then, and
#: the host takes a lease for lost well before another may hold it.
LOST_LEASE_SECONDS: Final = 2.0

_TLV_REFUSALS: Final = frozenset(
    {Status.RINVOPTPARSTREAM, Status.ROPTPARNOTALLWD, Status.RINVPARLEN, Status.RINVOPTPARAMVAL}
)

T = TypeVar("T")


class _Heard:
    """A delivery that waits for its answer."""

    __slots__ = ("body", "delivery", "link", "received_at", "sequence")

    def __init__(
        self, link: Link, sequence: SequenceNumber, body: DeliverSm | DataSm, delivery: Delivery, now: datetime
    ) -> None:
        self.link, self.sequence, self.body, self.delivery, self.received_at = (
            link, sequence, body, delivery, now,
        )  # fmt: skip

    def answer(self, status: int = 0) -> None:
        self.link.reply(self.sequence, DataSmResp() if isinstance(self.body, DataSm) else DeliverSmResp(), status)
        if status == 0 and not self.link.closed.is_set():
            self.delivery.is_answered = True


class SmppSession:
    """The channel contract's session over SMPP. Made by the adapter; nothing happens before `run`."""

    def __init__(
        self,
        account: Account,
        host: SessionHost,
        lease: BindLease,
        *,
        references: References,
        deliveries: Deliveries,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        settings = account.settings
        assert isinstance(settings, SmscAccount)
        self._key = account.key
        self._settings = settings
        self._host = host
        self._lease = lease
        self._references = references
        self._deliveries = deliveries
        self._tls = tls
        self._now = now
        self._links: tuple[Link, ...] = ()
        self._bound = asyncio.Event()
        self._heard: deque[_Heard] = deque()
        self._hears = asyncio.Event()
        self._refused_with = 0
        self._ended = False
        self._sends_reference = settings.user_message_reference
        #: Answers to submits that had been given up: their ids are lost to the outcome.
        self.late_answers = 0

    # -- staying connected

    async def run(self) -> None:
        """Hold the session until the lease is lost. Cancellation unbinds cleanly first."""
        listener = asyncio.create_task(self._listen())
        failures = 0
        try:
            while not self._lease.lost.is_set():
                began = asyncio.get_running_loop().time()
                pause = await self._hold(failures)
                lasted = asyncio.get_running_loop().time() - began
                # A peer that accepts binds only to drop them is no reason to begin anew at the shortest pause.
                failures = 0 if lasted > self._settings.longest_reconnect_seconds else failures + 1
                await self._unless_lost(asyncio.sleep(pause))
        finally:
            self._ended = True
            # Whoever waits for a bind learns that none will come.
            self._bound.set()
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _hold(self, failures: int) -> float:
        """Connect and stay until something ends it. Returns the pause before the next try, in seconds."""
        settings = self._settings
        try:
            links = await self._unless_lost(self._open())
            if links is None:
                return 0.0
            await self._stay(links)
        except BindRefused as refused:
            self._refused_with = refused.status
            log.warning("SMSC account %s: bind refused with %s", self._key, status_name(refused.status))
            if refused.status in BAD_CREDENTIALS:
                return settings.bad_credentials_seconds
            if refused.status == Status.RALYBND:
                # The SMSC still holds the old session: it notices that it is gone when we would.
                return settings.enquire_interval_seconds
        except (OSError, TimeoutError) as error:
            log.warning("SMSC account %s: no connection: %s", self._key, type(error).__name__)
        longest, first = settings.longest_reconnect_seconds, settings.first_reconnect_seconds
        return min(longest, first * 2.0 ** min(failures, 20)) * random.uniform(0.5, 1.0)

    async def _open(self) -> tuple[Link, ...]:
        """Connect and bind: one link, or a transmitter and a receiver."""
        links: list[Link] = []
        try:
            for kind in self._kinds():
                link = await connect(
                    self._settings.host, self._settings.port, self._settings.link_times, self._on_delivery,
                    tls=self._tls,
                )  # fmt: skip
                links.append(link)
                await link.bind(kind)
        except BaseException:
            for link in links:
                link.close("the session could not be opened")
            raise
        return tuple(links)

    def _kinds(self) -> tuple[BindTransceiver | BindTransmitter | BindReceiver, ...]:
        settings = self._settings
        kinds: tuple[type[BindTransceiver | BindTransmitter | BindReceiver], ...] = (
            (BindTransceiver,) if settings.bind_mode == "transceiver" else (BindTransmitter, BindReceiver)
        )
        return tuple(
            kind(
                settings.system_id,
                settings.password.get_secret_value(),
                settings.system_type,
                address_range=settings.address_range,
            )
            for kind in kinds
        )

    async def _stay(self, links: tuple[Link, ...]) -> None:
        """Be bound until a link is gone or the lease is lost."""
        self._links, self._refused_with = links, 0
        self._bound.set()
        log.info("SMSC account %s: bound", self._key)
        try:
            ends = [asyncio.create_task(link.closed.wait()) for link in links]
            await self._unless_lost(_first(ends))
            if self._lease.lost.is_set():
                self._bound.clear()
                await asyncio.gather(*(link.leave(LOST_LEASE_SECONDS) for link in links))
        except asyncio.CancelledError:
            self._bound.clear()
            await asyncio.gather(*(link.leave() for link in links))
            raise
        finally:
            self._bound.clear()
            self._links = ()
            self.late_answers += sum(link.late_answers for link in links)
            for link in links:
                link.close("the lease was lost" if self._lease.lost.is_set() else "the other link ended")
            log.info("SMSC account %s: no longer bound: %s", self._key, links[0].why_closed)

    async def _unless_lost(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do `work`, but stop at once when the lease is lost; None then."""
        doing = asyncio.create_task(work)
        lost = asyncio.create_task(self._lease.lost.wait())
        try:
            await asyncio.wait((doing, lost), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            lost.cancel()
            await asyncio.gather(doing, lost, return_exceptions=True)

    @property
    def is_bound(self) -> bool:
        """Whether it can send now."""
        return bool(self._links) and all(link.is_bound for link in self._links)

    @property
    def free_slots(self) -> int:
        """How many submissions it would write without waiting: its window and rate."""
        return self._links[0].free_slots if self.is_bound else 0

    # -- sending

    async def send(self, attempt: Attempt) -> SendResult:
        """Submit once, all parts. Never raises for what the SMSC does. First parts are written in call order."""
        settings = self._settings
        try:
            rendered = render(attempt.message, attempt.identity.identity, attempt.channel_properties, settings)
            parts = submits(
                rendered,
                settings,
                reference=self._references.next_for(rendered.source.address, rendered.destination.address)
                if needs_reference(rendered, settings)
                else 0,
                attempt_id=attempt.attempt_id,
                ttl_seconds=attempt.ttl_seconds_left,
            )
        except Unsupported as error:
            return SendResult(Rejected(error.reason))
        return await self._send_parts(parts, attempt.attempt_id)

    async def _send_parts(self, parts: tuple[SubmitSm, ...], attempt_id: str) -> SendResult:
        deadline = asyncio.get_running_loop().time() + SEND_TIMEOUT_SECONDS
        ids: list[str] = []
        exchanges: list[Exchange] = []
        for number, part in enumerate(parts, 1):
            started_at = self._now()
            try:
                # The first part never goes again by itself: the router decides.
                answer = await (self._submit(part, deadline) if number == 1 else self._submit_later(part, deadline))
            except UnwritableValue as error:
                reason = Reason(ReasonCode.BAD_REQUEST, str(error))
                return SendResult(PartlyAccepted(tuple(ids), reason) if ids else Rejected(reason), tuple(exchanges))
            exchanges.append(_exchange(f"submit_sm {number}/{len(parts)}", answer, started_at, self._now()))
            if not (isinstance(answer, Answered) and answer.status == 0):
                outcome = self._end(answer, tuple(ids))
                if isinstance(outcome, Unknown):
                    name = reference_name(attempt_reference(attempt_id))
                    outcome = replace(outcome, provider_ids=(*ids, name), parts=len(parts))
                return SendResult(outcome, tuple(exchanges))
            ids.append(canonical_id(answer.message_id, self._settings.receipt_ids))
        return SendResult(Accepted(tuple(ids)), tuple(exchanges))

    async def _submit_later(self, part: SubmitSm, deadline: float) -> Answer:
        """Submit a later part.

        If it was certainly not taken, because of a throttle or a lost connection, it waits and goes again while
        there is time: the person already has the beginning.
        """
        loop = asyncio.get_running_loop()
        while True:
            answer = await self._submit(part, deadline)
            if not _may_go_again(answer):
                return answer
            try:
                async with asyncio.timeout_at(deadline):
                    # The link that just ended is still ours until the loop has come round.
                    await asyncio.sleep(0)
                    await self._bound.wait()
            except TimeoutError:
                return answer
            if self._ended or loop.time() >= deadline:
                return answer

    async def _submit(self, part: SubmitSm, deadline: float) -> Answer:
        if not self._links:
            return NotWritten("not bound")
        link = self._links[0]
        if not self._sends_reference:
            part = _without_reference(part)
        answer = await link.submit(part, deadline)
        if (
            isinstance(answer, Answered)
            and answer.status in _TLV_REFUSALS
            and Tag.USER_MESSAGE_REFERENCE in part.tlvs
            and not link.closed.is_set()
        ):
            # Some SMSCs take no optional parameters. It was refused, so going once more without is no second try.
            log.warning("SMSC account %s: refuses user_message_reference; sending without", self._key)
            self._sends_reference = False
            return await link.submit(_without_reference(part), deadline)
        return answer

    def _end(self, answer: Answer, ids: tuple[str, ...]) -> Outcome:
        """What an attempt came to whose next part was not taken for certain."""
        match answer:
            case Unanswered(why):
                return Unknown(Reason(ReasonCode.UNKNOWN, f"submit_sm: {why}"), ids)
            case NotWritten(why) if not ids and self._refused_with in BAD_CREDENTIALS:
                words = f"bind refused with {status_name(self._refused_with)}"
                return Rejected(reported(ReasonCode.CHANNEL_BAD_CONFIGURATION, words), misconfigured=True)
            case NotWritten(why):
                failed = FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, f"submit_sm was not written: {why}"))
                return PartlyAccepted(ids, failed.reason) if ids else failed
            case Answered(status, _, pause):
                refused = refusal(status, pause_seconds=pause or None)
                return PartlyAccepted(ids, refused.reason) if ids else refused

    # -- hearing

    def _on_delivery(self, link: Link, sequence: SequenceNumber, body: DeliverSm | DataSm) -> None:
        now = self._now()
        heard = _Heard(link, sequence, body, self._deliveries.name(body, link.closed, now), now)
        if len(self._heard) >= MAX_HEARD:
            heard.answer(Status.RX_T_APPN)
            return
        self._heard.append(heard)
        self._hears.set()

    async def _listen(self) -> None:
        """Make what was heard durable, in batches, and answer it then."""
        while True:
            await self._hears.wait()
            self._hears.clear()
            while self._heard:
                await self._take([self._heard.popleft() for _ in range(min(BATCH, len(self._heard)))])

    async def _take(self, batch: list[_Heard]) -> None:
        try:
            await self._make_durable(batch)
        except Exception as error:  # noqa: BLE001 - boundary: the SMSC is told to come again, nothing is lost
            if len(batch) > 1:
                # One that cannot be stored must not keep back its neighbours.
                for heard in batch:
                    await self._take([heard])
                return
            log.warning("SMSC account %s: delivery not taken: %s", self._key, type(error).__name__)
            batch[0].answer(Status.RX_T_APPN)
            return
        for heard in batch:
            heard.answer()

    async def _make_durable(self, batch: list[_Heard]) -> None:
        facts: list[Fact] = []
        async with asyncio.timeout(DURABLE_WITHIN_SECONDS):
            for heard in batch:
                read = read_delivery(heard.body, self._settings, heard.received_at, heard.delivery.provider_id)
                if isinstance(read, InboundPart):
                    whole = await self._host.collect(read)
                    if whole:
                        facts.append(put_together(whole, self._settings))
                elif not isinstance(read, Nothing):
                    facts.append(read)
            if facts:
                await self._host.receive(facts)


def _may_go_again(answer: Answer) -> bool:
    match answer:
        case NotWritten():
            return True
        case Answered(status):
            return status == Status.RTHROTTLED
        case Unanswered():
            return False


def _without_reference(part: SubmitSm) -> SubmitSm:
    if Tag.USER_MESSAGE_REFERENCE not in part.tlvs:
        return part
    rest = {tag: value for tag, value in part.tlvs.items() if tag != Tag.USER_MESSAGE_REFERENCE}
    return replace(part, tlvs=rest)


def _exchange(operation: str, answer: Answer, started_at: datetime, finished_at: datetime) -> Exchange:
    match answer:
        case Answered(status, message_id):
            return Exchange(operation, status_name(status), started_at, finished_at, message_id)
        case Unanswered(why):
            return Exchange(operation, "no answer", started_at, finished_at, why)
        case NotWritten(why):
            return Exchange(operation, "not written", started_at, finished_at, why)


async def _first(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Wait for the first of some tasks and end the others."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
