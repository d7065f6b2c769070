"""Endpoints that misbehave, processes that freeze, and a dead endpoint with ten thousand callbacks."""

from __future__ import annotations

import asyncio
import gzip
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.http.certificate import certificate
from tests.flow.callback_delivery.conftest import World, callback
from tests.flow.callback_delivery.receiver import Answer, Got, Receiver
from tests.flow.callback_delivery.test_process import Service, all_delivered, check, configure, stories

from switchboard.callbacks.schedule import FIRST_RETRY_SECONDS
from switchboard.http.address import parse_networks
from switchboard.http.guarded import GuardedHttpClient
from switchboard.ids import mint
from switchboard.testing import wait_until


@pytest.fixture
async def service(world: World) -> AsyncIterator[Service]:
    service = Service(world)
    yield service
    await service.stop()


@pytest.mark.fault
async def test_what_a_frozen_process_was_at_is_delivered_by_another_and_its_late_outcomes_have_no_effect(
    world: World, receiver: Receiver, service: Service
) -> None:
    webhook = await configure(world, receiver.url())
    thaw = asyncio.Event()
    receiver.behave = lambda got: Answer(200, after=thaw if len(receiver.got) <= 20 else None)
    orders = stories(webhook, 20)
    frozen = await service.start()
    await world.publish(*orders)
    await wait_until(lambda: len(receiver.got) >= 20, timeout_seconds=30)
    # Slow ones are leased, so that others may have them once the leases run out.
    await wait_until(
        lambda: world.pool.fetchval("SELECT count(*) > 0 FROM switchboard.callback_streams WHERE owner IS NOT NULL"),
        timeout_seconds=30,
    )

    frozen.send_signal(signal.SIGSTOP)
    under_way = len(receiver.got)
    thaw.set()
    await world.advance(timedelta(seconds=31))
    second = await service.start(ordinal=1)
    await wait_until(lambda: all_delivered(world, len(orders)), timeout_seconds=60)
    frozen.send_signal(signal.SIGCONT)
    for process in (frozen, second):
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    check(receiver, orders, most_twice=under_way)
    assert await all_delivered(world, len(orders))
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("hangs", 0, "no whole answer"),
        ("drips", 0, "no whole answer"),
        ("redirects", 302, "answered 302"),
        ("is rubbish", 0, ""),
        ("is huge", 500, "answered 500"),
        ("hangs up", 0, ""),
        ("floods headers", 0, ""),
        ("is a bomb", 500, "answered 500"),
        ("shows an expired certificate", 0, "no connection"),
        ("shows another's certificate", 0, "no connection"),
    ],
)
async def test_an_answer_that_is_none_is_a_failed_try_and_holds_up_nobody(
    world: World, receiver: Receiver, tmp_path: Path, kind: str, status: int, error: str
) -> None:
    tls, trusted = _identity(kind, tmp_path)
    server = await asyncio.start_server(_misbehaviour(kind), "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    bad = world.apps.add(f"{'https' if tls else 'http'}://localhost:{port}/hook")
    good = world.apps.add(receiver.url())
    client = GuardedHttpClient(
        allowed=parse_networks("127.0.0.0/8"), timeout_seconds=1.0, trusted_certificates_pem=trusted
    )
    await world.run(client=client)

    await world.publish(callback(bad), *(callback(good) for _ in range(5)))
    await wait_until(lambda: world.pool.fetchval("SELECT count(*) = 6 FROM switchboard.callback_events"))
    await wait_until(lambda: world.states(endpoint=f"endpoint:{bad.id}", state="waiting", attempts=1))

    (row,) = await world.rows(endpoint=f"endpoint:{bad.id}")
    assert row["last_status"] == status
    assert error in row["last_error"] or kind in ("hangs", "drips")
    assert len(row["last_answer"]) <= 1024
    assert len(receiver.taken) == 5
    server.close()


def _identity(kind: str, folder: Path) -> tuple[ssl.SSLContext | None, bytes]:
    """The certificate that the endpoint shows, and what is trusted."""
    if "certificate" not in kind:
        return None, b""
    is_expired = "expired" in kind
    file, pem = certificate(folder, "localhost" if is_expired else "another.example", days=-1 if is_expired else 1)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    return tls, pem


def _misbehaviour(kind: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            match kind:
                case "hangs":
                    await reader.read()
                case "drips":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n")
                    while not writer.is_closing():
                        writer.write(b".")
                        await writer.drain()
                        await asyncio.sleep(0.02)
                case "redirects":
                    writer.write(b"HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
                case "is rubbish":
                    writer.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
                case "is huge":
                    writer.write(b"HTTP/1.1 500 X\r\ncontent-length: 1000000000\r\n\r\n")
                    for _ in range(64):
                        writer.write(b"x" * 65_536)
                        await writer.drain()
                case "floods headers":
                    writer.write(b"HTTP/1.1 200 OK\r\n")
                    for number in range(5000):
                        writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                case "is a bomb":
                    bomb = gzip.compress(b"\0" * 10_000_000)
                    writer.write(b"HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb))
                    writer.write(bomb)
                case _:
                    pass  # it hangs up
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return answer


async def test_an_endpoint_that_flaps_gets_everything_in_order(world: World, receiver: Receiver) -> None:
    webhook = world.apps.add(receiver.url(), per_second=5000)
    up = [True]
    receiver.behave = lambda got: Answer(200 if up[0] else 503)
    await world.run()
    stream = [mint() for _ in range(10)]
    orders = [callback(webhook, stream=one, sequence=number) for number in range(1, 7) for one in stream]

    for round_ in range(3):
        up[0] = round_ % 2 == 0
        await world.publish(*orders[round_ * 20 : round_ * 20 + 20])
        seen = (round_ + 1) * 20
        await wait_until(lambda seen=seen: world.pool.fetchval(  # type: ignore[misc]
            "SELECT count(*) = $1 FROM switchboard.callback_events", seen
        ))  # fmt: skip
    up[0] = True

    async def all_taken() -> bool:
        await world.advance(timedelta(seconds=FIRST_RETRY_SECONDS))
        return len({got.event_id for got in receiver.taken}) == 60

    await wait_until(all_taken, timeout_seconds=30)
    order_of = {order.callback_id: (order.stream, order.sequence) for order in orders}
    firsts = [order_of[event_id] for event_id in dict.fromkeys(got.event_id for got in receiver.taken)]  # type: ignore[index]
    for one in stream:
        assert [sequence for of, sequence in firsts if of == one] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.fault
async def test_ten_thousand_callbacks_to_an_endpoint_dead_for_a_day_each_get_a_real_try(
    world: World, receiver: Receiver
) -> None:
    webhook = world.apps.add(receiver.url(), per_second=10_000)
    receiver.behave = lambda got: Answer(503)
    tried: set[str] = set()

    def refuse(got: Got) -> Answer:
        tried.add(got.event_id)
        receiver.got.clear()
        return Answer(503)

    receiver.behave = refuse
    await world.run()
    orders = [callback(webhook) for _ in range(10_000)]
    for start in range(0, len(orders), 1000):
        await world.publish(*orders[start : start + 1000])
    await wait_until(
        lambda: world.pool.fetchval("SELECT count(*) = 10000 FROM switchboard.callback_events"), timeout_seconds=120
    )

    await world.advance(timedelta(hours=25))
    await wait_until(
        lambda: world.pool.fetchval("SELECT count(*) = 10000 FROM switchboard.callback_events WHERE state = 'expired'"),
        timeout_seconds=300,
    )

    assert tried == {order.callback_id for order in orders}
    assert await world.pool.fetchval("SELECT min(attempts) FROM switchboard.callback_events") >= 1
    assert await world.pool.fetchval("SELECT waiting FROM switchboard.lanes") == 0
