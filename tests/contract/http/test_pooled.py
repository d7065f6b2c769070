"""What the pooled client promises adapters: an honest word on whether a server may have acted."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from switchboard.http.client import HttpClient, NoAnswer, NotSent
from switchboard.http.pooled import PooledHttpClient

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b"0123456789"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Thing: here\r\n\r\ndone"


@pytest.fixture
async def client() -> AsyncIterator[PooledHttpClient]:
    client = PooledHttpClient(connect_timeout_seconds=0.3, timeout_seconds=0.6, pool_timeout_seconds=0.1)
    yield client
    await client.close()


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A socket server on a free port; its connections are closed when the script or the test ends."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
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


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(len(BODY))


def closes_after(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return script


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(OK[:-2])
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(closes_at_once, id="closed before a byte was read"),
        pytest.param(resets, id="reset after the first byte"),
        pytest.param(closes_after(b""), id="closed without an answer"),
        pytest.param(closes_after(OK[:12]), id="closed within the head"),
        pytest.param(closes_after(OK[:-2]), id="closed within the body"),
        pytest.param(closes_after(b"hello\r\n\r\n"), id="no HTTP"),
        pytest.param(hangs, id="never answers"),
        pytest.param(hangs_in_the_body, id="stops within the body"),
    ],
)
async def test_a_connection_that_breaks_once_made_leaves_no_answer(client: PooledHttpClient, script: Script) -> None:
    async with serving(script) as port:
        with pytest.raises(NoAnswer):
            await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)


async def test_a_refused_connection_sent_nothing(client: PooledHttpClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NotSent):
            await client.request("POST", f"http://127.0.0.1:{unused.getsockname()[1]}/", body=BODY)


async def test_a_name_that_does_not_resolve_sent_nothing(client: PooledHttpClient) -> None:
    with pytest.raises(NotSent):
        await client.request("POST", "http://nobody.invalid/", body=BODY)


async def test_a_connection_that_is_never_taken_sent_nothing(client: PooledHttpClient) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # fills the backlog, so that the kernel answers no further SYN
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())

        with pytest.raises(NotSent):
            await client.request("POST", f"http://127.0.0.1:{listener.getsockname()[1]}/", body=BODY)


async def test_a_server_that_speaks_no_tls_sent_nothing(client: PooledHttpClient) -> None:
    async with serving(closes_after(b"")) as port:
        with pytest.raises(NotSent):
            await client.request("POST", f"https://127.0.0.1:{port}/", body=BODY)


async def test_a_tls_handshake_that_hangs_sent_nothing(client: PooledHttpClient) -> None:
    async with serving(hangs) as port:
        with pytest.raises(NotSent):
            await client.request("POST", f"https://127.0.0.1:{port}/", body=BODY)


async def test_an_untrusted_certificate_gets_nothing_and_a_trusted_one_everything(
    client: PooledHttpClient, tmp_path: Path
) -> None:
    authority, tls = own_authority(tmp_path)
    async with serving(closes_after(OK), tls) as port:
        with pytest.raises(NotSent):
            await client.request("POST", f"https://localhost:{port}/", body=BODY)
        trusting = PooledHttpClient(trusted_certificates_pem=authority)
        answer = await trusting.request("POST", f"https://localhost:{port}/", body=BODY)
        await trusting.close()

    assert answer.status == 200


async def test_all_connections_in_use_sends_nothing() -> None:
    client = PooledHttpClient(max_connections=1, timeout_seconds=2, pool_timeout_seconds=0.05)
    connected = asyncio.Event()

    async def holds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await asyncio.Event().wait()

    async with serving(holds) as port:
        url = f"http://127.0.0.1:{port}/"
        first = asyncio.create_task(client.request("POST", url, body=BODY))
        await connected.wait()
        with pytest.raises(NotSent):
            await client.request("POST", url, body=BODY)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await client.close()


async def test_a_closed_client_sends_nothing(client: PooledHttpClient) -> None:
    await client.close()
    with pytest.raises(NotSent):
        await client.request("POST", "http://127.0.0.1:1/", body=BODY)


async def test_a_malformed_url_sends_nothing_and_is_not_quoted(client: PooledHttpClient) -> None:
    with pytest.raises(NotSent) as raised:
        await client.request("POST", "bot-secret", body=BODY)

    assert "secret" not in str(raised.value)


async def test_errors_do_not_quote_the_url(client: PooledHttpClient) -> None:
    async with serving(closes_at_once) as port:
        with pytest.raises(NoAnswer) as raised:
            await client.request("POST", f"http://127.0.0.1:{port}/bot-secret/send", body=BODY)

    assert "secret" not in repr(raised.value)
    assert raised.value.__cause__ is None


async def test_an_answer_keeps_status_headers_and_body(client: PooledHttpClient) -> None:
    async with serving(closes_after(OK)) as port:
        answer = await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)

    assert (answer.status, answer.headers["x-thing"], answer.body) == (200, "here", b"done")


async def test_a_redirect_is_an_answer_and_is_not_followed(client: PooledHttpClient) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with serving(closes_after(redirect)) as port:
        answer = await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)

    assert answer.status == 302


async def test_an_answer_is_cut_at_the_limit() -> None:
    client = PooledHttpClient(answer_limit_bytes=3)
    async with serving(closes_after(OK)) as port:
        answer = await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)
    await client.close()

    assert answer.body == b"don"


async def test_a_connection_is_used_again(client: PooledHttpClient) -> None:
    connections = 0

    async def answers_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await read_request(reader)
            writer.write(OK)

    async with serving(answers_twice) as port:
        for _ in range(2):
            await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)

    assert connections == 1


async def test_a_request_on_a_kept_connection_that_breaks_is_not_sent_again(client: PooledHttpClient) -> None:
    requests = 0

    async def answers_once_reads_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(OK)
        await read_request(reader)
        requests += 1

    async with serving(answers_once_reads_twice) as port:
        await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)
        with pytest.raises(NoAnswer):
            await client.request("POST", f"http://127.0.0.1:{port}/", body=BODY)

    assert requests == 2


def test_it_is_what_adapters_are_handed() -> None:
    client: HttpClient = PooledHttpClient()

    assert client is not None


def own_authority(folder: Path) -> tuple[bytes, ssl.SSLContext]:
    """An authority that nobody trusts yet, and the context of a server it certifies as `localhost`."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("an authority", authority_key, "an authority", authority_key, is_authority=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + certificate("localhost", key, "an authority", authority_key))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    return authority, tls


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
) -> bytes:
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM)
