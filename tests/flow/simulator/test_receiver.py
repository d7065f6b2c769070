"""The webhook receiver: what it keeps, how it checks signatures, and every way it can misbehave."""

import asyncio
import base64
import hmac
from typing import Any

import pytest
from pyreqwest.exceptions import PyreqwestError

from switchboard.testing import wait_until
from switchboard_simulator.receiver.record import Verdict
from switchboard_simulator.receiver.signature import check

BODY = '{"app_id":"01K07AR79NTJNDR8WB9R47EE9H","note":"blåbär"}'.encode()
#: The contract's own test vector (conversation-api 10.1).
SECRET = "wharf-lantern-42"
SIGNED = {
    "x-sinch-webhook-signature": "x8P+ImOVrMJhNvY2jjrIuc78jpTVdh6+Djbbt4oPAaA=",
    "x-sinch-webhook-signature-algorithm": "HmacSHA256",
    "x-sinch-webhook-signature-nonce": "01K0A00000NNCE0000TEST0001",
    "x-sinch-webhook-signature-timestamp": "1752570123",
}


def standard(secret_bytes: bytes) -> dict[str, str]:
    signed = b"msg_1.1752570123." + BODY
    signature = base64.b64encode(hmac.digest(secret_bytes, signed, "sha256")).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": "1752570123", "webhook-signature": f"v1,old= v1,{signature}"}


CHECKS: dict[str, tuple[tuple[str, ...], dict[str, str], bytes, Verdict]] = {
    "the contract's vector": ((SECRET,), SIGNED, BODY, Verdict.VALID),
    "one byte more": ((SECRET,), SIGNED, BODY + b" ", Verdict.INVALID),
    "another secret": (("other",), SIGNED, BODY, Verdict.INVALID),
    "another nonce": ((SECRET,), {**SIGNED, "x-sinch-webhook-signature-nonce": "n"}, BODY, Verdict.INVALID),
    "another algorithm": ((SECRET,), {**SIGNED, "x-sinch-webhook-signature-algorithm": "md5"}, BODY, Verdict.INVALID),
    "no timestamp": ((SECRET,), {**SIGNED, "x-sinch-webhook-signature-timestamp": ""}, BODY, Verdict.INVALID),
    "no signature": ((SECRET,), {}, BODY, Verdict.UNSIGNED),
    "no secret": ((), SIGNED, BODY, Verdict.UNCHECKED),
    "the older of two secrets": (("newer", SECRET), SIGNED, BODY, Verdict.VALID),
    "both signatures": ((SECRET,), SIGNED | standard(SECRET.encode()), BODY, Verdict.VALID),
    "a wrong second signature": ((SECRET,), SIGNED | standard(b"other"), BODY, Verdict.INVALID),
}


@pytest.mark.parametrize("case", CHECKS)
def test_the_signature_is_checked_over_the_raw_body(case: str) -> None:
    secrets, headers, body, verdict = CHECKS[case]

    assert check(secrets, headers, body)[0] is verdict


async def post(simulator: Any, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Any:
    return await simulator.request("POST", "/receiver/app", body, headers)


async def behave(simulator: Any, **behaviour: Any) -> None:
    answer = await simulator.control("PUT", "receivers/app", behaviour=behaviour)
    assert answer.status == 200, answer.content


async def test_a_callback_is_taken_checked_and_put_on_record(simulator: Any) -> None:
    await simulator.control("PUT", "receivers/app", secret=SECRET)

    answer = await post(simulator, BODY, {**SIGNED, "authorization": "Bearer very-secret"})

    (line,) = simulator.callbacks()
    assert answer.status == 200
    assert (line["receiver"], line["body"], line["signature"], line["status"]) == ("app", BODY.decode(), "valid", 200)
    assert line["headers"]["x-sinch-webhook-signature-nonce"] == "01K0A00000NNCE0000TEST0001"
    assert "very-secret" not in str(line)


async def test_a_receivers_secret_is_never_told(simulator: Any) -> None:
    await simulator.control("PUT", "receivers/app", secret=SECRET)

    told = await simulator.control("GET", "receivers/app")

    assert told.json["has_secret"] is True
    assert SECRET.encode() not in told.content


async def test_while_a_secret_is_changed_either_is_good(simulator: Any) -> None:
    for secret, verdict in (["newer", SECRET], "valid"), ("newer", "invalid"), (None, "unchecked"):
        await simulator.control("PUT", "receivers/app", secret=secret)
        await post(simulator, BODY, SIGNED)

        assert simulator.callbacks()[-1]["signature"] == verdict


async def test_any_body_is_kept(simulator: Any) -> None:
    await post(simulator, b"\xff\x00 not text")

    (line,) = simulator.callbacks()
    assert line["is_text"] is False


async def test_the_same_event_again_is_marked(simulator: Any) -> None:
    for _ in range(2):
        await post(simulator, headers={"webhook-id": "event-1"})

    kept = simulator.world.receivers.need("app").kept
    assert [callback.repeated for callback in kept] == [False, True]


async def test_only_the_last_callbacks_are_kept_but_all_are_counted(simulated: Any) -> None:
    async with simulated(keep_callbacks=2) as simulator:
        for number in range(3):
            await post(simulator, str(number).encode())

        kept = (await simulator.control("GET", "receivers/app/callbacks")).json["callbacks"]
        assert [callback["body"] for callback in kept] == ["1", "2"]
        assert (await simulator.control("GET", "receivers/app")).json["received"] == 3
        assert len(simulator.callbacks()) == 3


async def test_it_answers_the_status_body_and_delay_it_was_told(simulator: Any) -> None:
    await behave(simulator, status=429, retry_after="7", body="later", delay_seconds=0.01)

    answer = await post(simulator)

    assert (answer.status, answer.headers["retry-after"], answer.content) == (429, "7", b"later")


async def test_a_behaviour_ends_after_its_count(simulator: Any) -> None:
    await behave(simulator, status=500, count=2)

    assert [(await post(simulator)).status for _ in range(3)] == [500, 500, 200]


async def test_a_behaviour_may_meet_only_some_bodies(simulator: Any) -> None:
    await behave(simulator, status=500, match="01HEAD")

    assert (await post(simulator, b'{"id":"01HEAD"}')).status == 500
    assert (await post(simulator, b'{"id":"01NEXT"}')).status == 200


async def test_a_flapping_receiver_is_well_and_ill_in_turns(simulator: Any) -> None:
    await behave(simulator, mode="flap", good=2, bad=1)

    assert [(await post(simulator)).status for _ in range(6)] == [200, 200, 503, 200, 200, 503]


async def test_a_redirect_points_elsewhere(simulator: Any) -> None:
    await behave(simulator, mode="redirect", location="http://127.0.0.1/elsewhere")

    answer = await post(simulator)

    assert (answer.status, answer.headers["location"]) == (302, "http://127.0.0.1/elsewhere")


async def test_a_flood_is_as_large_as_told(simulator: Any) -> None:
    await behave(simulator, mode="flood", size_bytes=200_000)

    assert len((await post(simulator)).content) == 200_000


async def test_a_cut_gives_no_answer_and_is_on_record(simulator: Any) -> None:
    await behave(simulator, mode="cut")

    with pytest.raises(PyreqwestError):
        await post(simulator)

    assert simulator.callbacks()[0]["status"] is None


async def test_a_hanging_receiver_lets_go_when_the_simulator_stops(simulated: Any) -> None:
    async with simulated() as simulator:
        await behave(simulator, mode="hang")
        hanging = asyncio.create_task(post(simulator))
        await wait_until(lambda: bool(simulator.callbacks()))
        assert not hanging.done()

    with pytest.raises(PyreqwestError):
        await hanging


async def test_a_dripping_receiver_begins_and_never_ends(simulated: Any) -> None:
    async with simulated() as simulator:
        await behave(simulator, mode="drip", body="ab", delay_seconds=600)
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.world.ports["http"])
        writer.write(b"POST /receiver/app HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")

        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(1)

        assert head.startswith(b"HTTP/1.1 200")
        assert first == b"a"
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_a_dripping_receiver_ends_in_time_with_the_whole_answer(simulator: Any) -> None:
    await behave(simulator, mode="drip", body="abc", delay_seconds=0.001)

    assert (await post(simulator)).content == b"abc"


@pytest.mark.parametrize(
    "behaviour",
    [{"mode": "dance"}, {"status": 99}, {"delay_seconds": -1}, {"good": 0, "bad": 0}, {"size_bytes": -1}],
    ids=str,
)
async def test_a_behaviour_that_makes_no_sense_is_refused(simulator: Any, behaviour: dict[str, Any]) -> None:
    answer = await simulator.control("PUT", "receivers/app", behaviour=behaviour)

    assert answer.status == 400
    assert (await post(simulator)).status == 200
