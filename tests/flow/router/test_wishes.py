"""What a request asks of single channels, and what an app says about doubt, decides what the router does."""

from datetime import UTC, datetime

from msgspec.structs import replace
from tests.flow.router.conftest import CHAT, PHONE, TELEGRAM, Router

from switchboard.channel.outcome import Accepted, Unknown
from switchboard.reason import Reason, ReasonCode
from switchboard.records import AttemptFinished, TimerFired
from switchboard.rules.progress import OnUnknown, Phase
from switchboard.rules.route import StepWish, Success
from switchboard.testing import wait_until

DOUBT = Unknown(Reason(ReasonCode.UNKNOWN, "timeout"))


async def _doubt(router: Router, **fields: object) -> Phase:
    """What becomes of a message whose first channel never says whether it took it."""
    sent = router.accepted(PHONE, CHAT, **fields)
    await router.plan(sent)
    await router.tell(AttemptFinished(sent.message_id, 0, 1, DOUBT, datetime.now(UTC)))
    waiting = await router.message(sent.message_id)
    assert (waiting.progress.phase, waiting.progress.step_due_at is not None) == (Phase.UNKNOWN, True)
    await router.context.pool.execute("UPDATE clock SET shift = shift + '301 s'")
    await router.tell(TimerFired(sent.message_id, sent.accepted_at))
    return (await router.message(sent.message_id)).progress.phase


async def test_an_app_says_what_to_do_about_doubt_and_a_request_may_say_otherwise(router: Router):
    assert await _doubt(router) is Phase.FINAL
    assert await _doubt(router, on_unknown=OnUnknown.FAIL_OVER) is Phase.SENDING

    configuration = router.context.configuration
    changed = replace(router.app, on_unknown=OnUnknown.FAIL_OVER)
    await configuration.store.update_app(changed)

    async def is_heard() -> bool:
        return await configuration.app(changed.id) == changed

    await wait_until(is_heard)

    assert await _doubt(router) is Phase.SENDING
    assert await _doubt(router, on_unknown=OnUnknown.FAIL) is Phase.FINAL


async def test_a_step_s_own_wait_switches_the_channel(router: Router):
    sent = router.accepted(PHONE, CHAT, channel_steps=(StepWish(PHONE.channel, Success.DELIVERED, 30),))
    await router.plan(sent)
    await router.tell(AttemptFinished(sent.message_id, 0, 1, Accepted(("p1",)), datetime.now(UTC)))
    await router.context.pool.execute("UPDATE clock SET shift = '31 s'")

    due = (await router.message(sent.message_id)).progress.step_due_at
    assert due is not None
    await router.tell(TimerFired(sent.message_id, due))

    assert [order.step for order in await router.dispatched(TELEGRAM)] == [1]
