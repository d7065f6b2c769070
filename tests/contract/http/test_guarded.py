"""What the guarded client promises: a user's URL reaches the internet and what the operator allows, no more."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import cast

import pytest
from tests.contract.http.certificate import certificate

from switchboard.http.address import IpAddress, is_allowed, parse_networks
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent
from switchboard.http.guarded import GuardedHttpClient, Refused

LOOPBACK = parse_networks("127.0.0.0/8")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.1.2.3",
    "127.255.255.255", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:7f00:1::",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::",
    "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd12:3456:789a::1", "fe80::1", "febf::1",
    "fec0::1", "ff02::1", "ff0e::1", "4000::1", "2600::5efe:a00:1", "2600::200:5efe:10.0.0.1", "fe80::1%1",
]  # fmt: skip
ALLOWED = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255",
    "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1",
    "198.17.255.255", "198.20.0.1", "223.255.255.255", "2001:4860:4860::8888", "2600::1", "2a00:1450:4001::1",
]  # fmt: skip
#: Spellings of places that must not be reached, as a user may write them.
SPELLINGS = [
    "http://localhost/", "http://LOCALHOST:80/", "http://127.1/", "http://127.0.1/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/",
    "http://0/", "http://0.0.0.0/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://%31%32%37.0.0.1/",
    "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[64:ff9b::127.0.0.1]/", "http://user:secret@127.0.0.1/",
    "http://8.8.8.8@127.0.0.1/", "http://127.0.0.1#@8.8.8.8/", "http:\\\\127.0.0.1/", "http:127.0.0.1/",
    "http:///127.0.0.1/", "HTTP://127.0.0.1/", "http://\t127.0.0.1/", " http://127.0.0.1/ ",
    "http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/latest/meta-data", "https://10.0.0.1/",
]  # fmt: skip
NO_URLS = [
    "", "hooks", "//127.0.0.1/", "ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "data:,x",
    "http://", "http://[::1%25lo]/", "http://[::1/", "http://a b/", "unix:///x", "http://8.8.8.8:99999/",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_inside_is_refused(address: str) -> None:
    assert not is_allowed(ip_address(address))


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_of_the_internet_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address))


def test_an_operator_allows_networks_and_nothing_beside_them() -> None:
    allowed = parse_networks("10.1.0.0/16, ::1")

    assert is_allowed(ip_address("10.1.2.3"), allowed)
    assert is_allowed(ip_address("::1"), allowed)
    assert not is_allowed(ip_address("10.2.0.1"), allowed)
    assert not is_allowed(ip_address("::ffff:10.1.2.3"), allowed)
    with pytest.raises(ValueError, match=r"'10\.1\.0\.1/16' is no address and no network"):
        parse_networks("10.1.0.1/16")


class Names:
    """A resolver that asks the test's DNS server over UDP."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()

        class Ask(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: object) -> None:
                answered.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(Ask, remote_addr=("127.0.0.1", self._port))
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"
        transport.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + question + b"\0\1\0\1")
        data = await answered
        transport.close()
        records = int.from_bytes(data[6:8], "big")
        if not records:
            raise OSError("no such name")
        start = 12 + len(question) + 4
        return [IPv4Address(data[start + 16 * n + 12 : start + 16 * n + 16]) for n in range(records)]


class NameServer(asyncio.DatagramProtocol):
    """A DNS server whose next answer the test decides."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = []
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        records = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + ip_address(text).packed for text in answer)
        self.transport.sendto(
            data[:2] + b"\x81\x80\0\1" + len(answer).to_bytes(2, "big") + b"\0\0\0\0" + data[12:] + records, address
        )


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    yield server
    transport.close()


def resolver(server: NameServer) -> Names:
    return Names(server.transport.get_extra_info("sockname")[1])


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that follows a script for each connection."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def answering(*pieces: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

    return script


@asynccontextmanager
async def guarded(**options: object) -> AsyncIterator[GuardedHttpClient]:
    client = GuardedHttpClient(**{"timeout_seconds": 5.0, **options})  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("url", SPELLINGS)
async def test_no_spelling_of_an_inside_address_is_reached(url: str) -> None:
    async with guarded() as client:
        with pytest.raises(Refused):
            await client.request("POST", url, body=b"x")


@pytest.mark.parametrize("url", NO_URLS)
async def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    async with guarded() as client:
        with pytest.raises(Refused):
            await client.request("GET", url)


async def test_a_name_that_means_an_inside_address_is_refused(names: NameServer) -> None:
    async with serving(answering(OK)) as port, guarded(resolver=resolver(names)) as client:
        for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254"):
            names.answers = [[inside]]
            with pytest.raises(Refused):
                await client.request("GET", f"http://{inside.replace('.', '-')}.example:{port}/")


async def test_only_the_allowed_of_several_addresses_is_used(names: NameServer) -> None:
    names.answers = [["10.0.0.1", "127.0.0.1", "169.254.169.254"]]
    async with serving(answering(OK)) as port, guarded(resolver=resolver(names), allowed=LOOPBACK) as client:
        answer = await client.request("GET", f"http://hooks.example:{port}/")

    assert answer.body == b"ok"


async def test_an_answer_that_flips_after_the_check_reaches_nothing(names: NameServer) -> None:
    """The connection goes to the checked address: the name is asked once for one exchange, and nobody asks again."""
    reached: list[str] = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("inside")
        await answering(OK)(reader, writer)

    names.answers = [["127.0.0.2"], ["127.0.0.1"]]
    async with (
        serving(inside) as port,
        guarded(resolver=resolver(names), allowed=parse_networks("127.0.0.2"), name_seconds=0) as client,
    ):
        with pytest.raises(NotSent, match="no connection"):
            await client.request("GET", f"http://hooks.example:{port}/")
        asked = names.asked
        with pytest.raises(Refused):
            await client.request("GET", f"http://hooks.example:{port}/")

    assert (asked, reached) == (1, [])


async def test_a_connection_kept_alive_is_not_used_once_the_name_means_something_else(names: NameServer) -> None:
    names.answers = [["127.0.0.1"], ["10.0.0.1"]]
    async with (
        serving(answering(OK)) as port,
        guarded(resolver=resolver(names), allowed=LOOPBACK, name_seconds=0) as client,
    ):
        assert (await client.request("GET", f"http://hooks.example:{port}/")).status == 200
        with pytest.raises(Refused):
            await client.request("GET", f"http://hooks.example:{port}/")


async def test_the_next_address_is_tried_where_the_first_refuses(names: NameServer) -> None:
    names.answers = [["127.0.0.9", "127.0.0.1"]]
    async with serving(answering(OK)) as port, guarded(resolver=resolver(names), allowed=LOOPBACK) as client:
        assert (await client.request("GET", f"http://hooks.example:{port}/")).status == 200


async def test_a_name_without_addresses_is_not_sent(names: NameServer) -> None:
    names.answers = [[]]
    async with guarded(resolver=resolver(names)) as client:
        with pytest.raises(NotSent, match="cannot be resolved"):
            await client.request("GET", "http://gone.example/")


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    followed: list[bytes] = []

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        followed.append(await reader.readuntil(b"\r\n\r\n"))

    async with serving(target) as inside:
        moved = f"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n".encode()
        async with serving(answering(moved)) as port, guarded(allowed=LOOPBACK) as client:
            answer = await client.request("POST", f"http://127.0.0.1:{port}/", body=b"x")

    assert (answer.status, followed) == (307, [])


async def read(*pieces: bytes, **options: object) -> HttpAnswer:
    """What the client makes of these bytes."""
    async with serving(answering(*pieces)) as port, guarded(allowed=LOOPBACK, **options) as client:
        return await client.request("POST", f"http://127.0.0.1:{port}/", body=b"x")


async def test_of_a_gigabyte_4_kb_are_read() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(endless) as port, guarded(allowed=LOOPBACK) as client:
        answer = await client.request("POST", f"http://127.0.0.1:{port}/", body=b"x")

    assert (answer.status, len(answer.body)) == (200, 4096)
    assert sent < 50_000_000


async def test_a_bomb_stays_the_few_bytes_it_was_sent_as() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()

    answer = await read(head, bomb)

    assert answer.body == bomb[:4096]


async def test_a_flood_of_headers_is_no_answer() -> None:
    flood = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(5000))

    with pytest.raises(NoAnswer):
        await read(b"HTTP/1.1 200 OK\r\n", flood, b"\r\n")


async def test_rubbish_is_no_answer() -> None:
    with pytest.raises(NoAnswer):
        await read(b"\x00\x01\x02 nonsense\r\n\r\n")


async def test_a_server_that_hangs_is_given_up() -> None:
    with pytest.raises(NoAnswer):
        await read(timeout_seconds=0.2)


async def test_a_server_that_takes_no_connection_is_given_up_before_the_whole_deadline() -> None:
    with socket.socket() as full, ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = others.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with guarded(allowed=LOOPBACK, connect_timeout_seconds=0.3, timeout_seconds=30.0) as client:
            with pytest.raises(NotSent, match="no connection"):
                await client.request("POST", f"http://127.0.0.1:{full.getsockname()[1]}/", body=b"x")


def test_unless_told_otherwise_3_s_to_connect_10_s_for_all_and_4_kb_are_the_bounds() -> None:
    client = GuardedHttpClient()

    assert (client._connect_timeout, client._timeout_seconds) == (timedelta(seconds=3), 10)
    assert client._answer_limit_bytes == 4096


async def test_a_server_that_drips_is_given_up_although_its_status_was_2xx() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        await asyncio.Event().wait()

    async with serving(drip) as port, guarded(allowed=LOOPBACK, timeout_seconds=0.3) as client:
        with pytest.raises(NoAnswer):
            await client.request("POST", f"http://127.0.0.1:{port}/", body=b"x")


async def test_an_error_never_quotes_the_url() -> None:
    async with guarded(allowed=LOOPBACK) as client:
        for url in ("http://127.0.0.1:1/?token=hush", "http://10.0.0.1/?token=hush", "bad:hush"):
            with pytest.raises(NotSent) as caught:
                await client.request("GET", url)
            assert "hush" not in str(caught.value)
            assert caught.value.__cause__ is None


async def test_clients_beyond_the_bound_are_closed_and_made_anew(names: NameServer) -> None:
    names.answers = [["127.0.0.1"]]
    async with (
        serving(answering(OK)) as port,
        guarded(resolver=resolver(names), allowed=LOOPBACK, clients_kept=2) as client,
    ):
        for number in (1, 2, 3, 1):
            assert (await client.request("GET", f"http://h{number}.example:{port}/")).status == 200
        assert len(client._clients) == 2


@pytest.mark.parametrize(
    ("name", "days", "trusted", "works"),
    [
        ("hooks.example", 1, True, True),
        ("hooks.example", 1, False, False),
        ("other.example", 1, True, False),
        ("hooks.example", -1, True, False),
    ],
    ids=["good", "of an unknown authority", "of another name", "expired"],
)
async def test_tls_is_verified_against_the_name(
    tmp_path: Path, names: NameServer, name: str, days: int, trusted: bool, works: bool
) -> None:
    names.answers = [["127.0.0.1"]]
    file, pem = certificate(tmp_path, name, days=days)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    async with (
        serving(answering(OK), tls) as port,
        guarded(resolver=resolver(names), allowed=LOOPBACK, trusted_certificates_pem=pem if trusted else b"") as client,
    ):
        if works:
            assert (await client.request("POST", f"https://hooks.example:{port}/", body=b"x")).status == 200
        else:
            with pytest.raises(NotSent):
                await client.request("POST", f"https://hooks.example:{port}/", body=b"x")
