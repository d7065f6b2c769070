"""Submits attempts: waits for a way, claims, sends once, records (DESIGN 5, 7; invariants I3 and I4).

A record is finished when its claim is committed: from then on the attempt's row is what the router goes by, so a
provider that hangs holds no partition. The person's key is held until the call is over, so that the next message to
them is not written before. Nothing is ever sent twice: what cannot be told is *unknown*.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from switchboard.bus import DeadLetterCause, Record, Slots
from switchboard.channel.contract import Account, Attempt, SendResult
from switchboard.channel.errors import NotConfigured, Unsupported
from switchboard.channel.manifest import Manifest
from switchboard.channel.outcome import FailedForNow, Outcome, Rejected, Unknown
from switchboard.configuration import Configuration
from switchboard.crash import crash_point
from switchboard.identity import ChannelIdentity
from switchboard.ids import AccountKey, MessageId, attempt_id, is_ulid
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AskCapability, DispatchEvent, DispatchMessage, RetractMessage
from switchboard.store.pool import Pool
from switchboard.topics import DISPATCH
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.admission import Admission
from switchboard_channel_adapter.claims import Claim, Claims
from switchboard_channel_adapter.errands import Errands
from switchboard_channel_adapter.lines import Line, Way
from switchboard_channel_adapter.recorder import Ended, Recorder
from switchboard_channel_adapter.retract import Retractor

log = structlog.get_logger(__name__)

#: How long a stop waits for calls under way before it leaves them to the router.
DRAIN_SECONDS: Final = 12.0
#: How much longer than promised an adapter may take before the host stops waiting.
_GRACE_SECONDS: Final = 2.0

_PLANNED: Final = """
SELECT message_id, step, submission, account, channel, identity FROM switchboard.attempts
WHERE message_id = $1 AND channel = $2 AND state = 'planned'
"""


class Submitter:
    """The slot handler of one channel's dispatch topic."""

    def __init__(
        self,
        manifest: Manifest,
        line: Line,
        *,
        admission: Admission,
        claims: Claims,
        recorder: Recorder,
        configuration: Configuration,
        pool: Pool,
        errands: Errands,
        retractor: Retractor | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manifest = manifest
        self._line = line
        self._admission = admission
        self._claims = claims
        self._recorder = recorder
        self._configuration = configuration
        self._pool = pool
        self._errands = errands
        self._retractor = retractor
        self._monotonic = monotonic
        self._under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, records: Sequence[Record], slots: Slots) -> None:
        """Begin the records. Each is settled by its own task."""
        for record in records:
            task = asyncio.create_task(self._serve(record, slots))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def stop(self) -> None:
        """Let calls under way end and be recorded. What takes too long stays claimed, and the router calls it unknown.

        To be called after the consumer has stopped.
        """
        self._recorder.stop()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=DRAIN_SECONDS)
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def end_message(self, record: Record, cause: DeadLetterCause) -> None:
        """A dispatch nobody can process ends its attempt as rejected, so that its message goes on (DESIGN 4)."""
        message_id = record.headers.get("message_id", b"").decode(errors="replace")
        if not is_ulid(message_id):
            log.error("a dead dispatch does not name its message", channel=self._manifest.channel)
            return
        reason = Reason(ReasonCode.INTERNAL_ERROR, f"The order to submit it cannot be processed: {cause.error}.")
        for row in await self._pool.fetch(_PLANNED, message_id, self._manifest.channel):
            await self._recorder.record(
                Ended(
                    message_id=MessageId(row["message_id"]),
                    step=row["step"],
                    submission=row["submission"],
                    account=AccountKey(row["account"]),
                    identity=ChannelIdentity(self._manifest.channel, row["identity"]),
                    result=SendResult(Rejected(reason)),
                    was_planned=True,
                )
            )

    async def _serve(self, record: Record, slots: Slots) -> None:
        try:
            order = DISPATCH.decode(record.value, record.headers)
            if isinstance(order, RetractMessage):
                slots.finish(record, hold_key=True)
                await self._retract(order, record, slots)
                return
            if not isinstance(order, DispatchMessage):
                await self._run(order, record, slots)
                return
            account = await self._configuration.account(order.account, order.app_id)
            started = await self._start(order, account)
        except asyncio.CancelledError:
            slots.fail(record, asyncio.CancelledError())
            raise
        except Exception as error:  # noqa: BLE001  # the bus's policy judges it
            slots.fail(record, error)
            return
        if started is None:
            slots.finish(record)
            return
        slots.finish(record, hold_key=True)
        way, claim = started
        try:
            result = await self._send(order, account, way, claim)
        finally:
            way.let_go()
            slots.release(record)
        await self._end(order, result)

    async def _start(self, order: DispatchMessage, account: Account | None) -> tuple[Way, Claim] | None:
        """Get a slot and claim. None if there is nothing left to do for this record."""
        ready = _nowhere if account is None else lambda: self._line.offer(account)
        way = await self._admission.enter(order.account, ready)
        if way is None:
            is_down = account is not None and self._line.is_down(account)
            await self._recorder.record(_ended(order, SendResult(_throttled(is_down)), was_planned=True))
            return None
        metrics.under_way.labels(self._manifest.channel).inc()
        claim = None
        try:
            if account is not None:
                await self._keep_postbacks(order)
            claim = await self._claims.claim(order)
        finally:
            if claim is None:
                way.let_go()
                self._leave(order)
        if claim is None:
            metrics.dropped.labels(self._manifest.channel).inc()
            return None
        crash_point("adapter.after_claim")
        return way, claim

    async def _send(self, order: DispatchMessage, account: Account | None, way: Way, claim: Claim) -> SendResult:
        if account is None:
            return SendResult(Rejected(Reason(ReasonCode.CHANNEL_CONFIGURATION_MISSING, "The account is gone.")))
        if self._monotonic() >= claim.send_before:
            # This process stood still: others may have decided that nothing was sent, and so it must be.
            return SendResult(_too_late())
        seconds = self._manifest.send_timeout_seconds + _GRACE_SECONDS
        try:
            async with asyncio.timeout(seconds):
                result = await way.send(_attempt(order, claim), account)
        except Unsupported as error:
            return SendResult(Rejected(error.reason))
        except NotConfigured as error:
            reason = Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, str(error))
            return SendResult(Rejected(reason, misconfigured=True))
        except TimeoutError:
            return SendResult(Unknown(Reason(ReasonCode.UNKNOWN, "The channel did not answer in time.")))
        except Exception as error:  # noqa: BLE001  # a bug of the adapter, and it may have written
            log.error("an adapter raised", channel=self._manifest.channel, error=type(error).__name__)
            return SendResult(Unknown(Reason(ReasonCode.INTERNAL_ERROR, "The channel's adapter failed.")))
        crash_point("adapter.after_submit")
        return result

    async def _end(self, order: DispatchMessage, result: SendResult) -> None:
        try:
            await self._recorder.record_whatever_it_takes(_ended(order, result))
        finally:
            self._leave(order)

    def _leave(self, order: DispatchMessage) -> None:
        metrics.under_way.labels(self._manifest.channel).dec()
        self._admission.leave(order.account)

    async def _run(self, order: DispatchEvent | AskCapability, record: Record, slots: Slots) -> None:
        """An errand. An event is finished once it is claimed: its row counts from then on. A question when answered."""
        if isinstance(order, AskCapability):
            await self._errands.ask(order)
            slots.finish(record)
            return
        is_ours = await self._errands.claim(order)
        slots.finish(record, hold_key=True)
        try:
            if is_ours:
                await self._errands.send(order)
        except Exception as error:  # noqa: BLE001  # the router gives the event up when its time has passed
            log.warning("how an event went is not told", channel=self._manifest.channel, error=type(error).__name__)
        finally:
            slots.release(record)

    async def _retract(self, order: RetractMessage, record: Record, slots: Slots) -> None:
        """Best effort: the record is finished, for the message's fate does not hang on it."""
        try:
            if self._retractor is None:
                log.info("the channel takes nothing back", channel=self._manifest.channel)
            else:
                await self._retractor.retract(order)
        except Exception as error:  # noqa: BLE001  # nothing else depends on it
            log.warning("taking back did not work", channel=self._manifest.channel, error=type(error).__name__)
        finally:
            slots.release(record)

    async def _keep_postbacks(self, order: DispatchMessage) -> None:
        postbacks = self._line.postbacks(_attempt(order, None))
        if postbacks:
            # Before the claim: a button must never be out without what it stands for.
            rows = [(order.account, key, postback) for key, postback in sorted(postbacks.items())]
            await self._pool.execute(_KEEP_POSTBACKS, *([*column] for column in zip(*rows, strict=True)))


_KEEP_POSTBACKS: Final = """
INSERT INTO switchboard.postbacks (account, key, postback, kept_at)
SELECT account, key, postback, switchboard.now()
FROM unnest($1::text[], $2::text[], $3::text[]) AS kept (account, key, postback)
ON CONFLICT (account, key) DO UPDATE SET kept_at = excluded.kept_at
"""


class _Nowhere:
    """The way of an attempt whose account is gone: it is claimed only to be rejected."""

    async def send(self, attempt: Attempt, account: Account) -> SendResult:
        raise NotConfigured("the account is gone")

    def let_go(self) -> None:
        pass


def _nowhere() -> Way | None:
    return _Nowhere()


def _attempt(order: DispatchMessage, claim: Claim | None) -> Attempt:
    left = None
    if claim is not None and order.ttl_ends_at is not None:
        left = max(1, int((order.ttl_ends_at - claim.claimed_at).total_seconds()))
    return Attempt(
        message_id=order.message_id,
        attempt_id=attempt_id(order.message_id, order.step, order.submission),
        app_id=order.app_id,
        identity=order.identity,
        message=order.message,
        channel_properties=order.channel_properties,
        ttl_seconds_left=left,
    )


def _ended(order: DispatchMessage, result: SendResult, *, was_planned: bool = False) -> Ended:
    return Ended(order.message_id, order.step, order.submission, order.account, order.identity, result, was_planned)


def _throttled(is_down: bool) -> Outcome:
    """No way within a second. A provider that is down counts against its gate; one that is busy does not."""
    if is_down:
        reason = Reason(ReasonCode.CHANNEL_FAILURE, "There is no connection to the provider.")
    else:
        reason = Reason(ReasonCode.RATE_LIMITED, "The channel could not be written to within a second.")
    return FailedForNow(reason, throttled=True)


def _too_late() -> Outcome:
    return FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, "The time to send had passed; nothing was sent."))
