"""HTTP to URLs that users supplied: webhooks and media. It reaches the internet and what an operator allows, no more.

A name is resolved here, every answer is checked, and the connection is made to the checked address: whatever the
name means a moment later, nobody asks again (ADR 0016). No redirects, no proxies, no cookies, no decompression; TLS is
verified against the name; an answer is read up to a limit, and the whole exchange has a deadline.

GuardedHttpClient raises what every HttpClient raises, NotSent and NoAnswer; and

NotSent
└── Refused     the URL leads where it must not, or is none
"""

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, Protocol, TypeAlias

from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError
from pyreqwest.http import Url

from switchboard.http.address import IpAddress, IpNetwork, is_allowed, parse_address
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent

CONNECT_TIMEOUT_SECONDS: Final = 3.0
TOTAL_TIMEOUT_SECONDS: Final = 10.0
ANSWER_LIMIT_BYTES: Final = 4096
#: How long checked addresses of a name are used before it is asked again.
NAME_SECONDS: Final = 30.0
#: Clients kept; each holds the connections to one address under one name.
CLIENTS_KEPT: Final = 1024
#: Addresses of one name that are tried in one exchange.
_ADDRESSES_TRIED: Final = 2
_RESOLVER_THREADS: Final = 8
_URLS_KEPT: Final = 4096

#: A name and the address it is pinned to.
_ClientKey: TypeAlias = "tuple[str, IpAddress | None]"
#: URLs that name an address mean it and nothing else: they share a client.
_LITERALS: Final[_ClientKey] = ("", None)

# hyper's words for a failure before there was a connection.
_CONNECTING: Final = "client error (Connect)"


class Refused(NotSent):
    """The URL leads where it must not lead, or is none. Trying again helps only if its owner changes something."""


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        """All addresses of a name, best first. Raises OSError if it has none or nobody answers."""
        ...


class SystemResolver:
    """The system's resolver, in threads of its own: a slow name server delays lookups, not the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        """As Resolver."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _lookup, name)
        parsed = (parse_address(text) for text in dict.fromkeys(found))
        return [address for address in parsed if address is not None]

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _lookup(name: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


class GuardedHttpClient:
    """An HttpClient for URLs of users. Made once a process; safe for any number of exchanges at once."""

    def __init__(
        self,
        *,
        allowed: Sequence[IpNetwork] = (),
        resolver: Resolver | None = None,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        timeout_seconds: float = TOTAL_TIMEOUT_SECONDS,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
        name_seconds: float = NAME_SECONDS,
        clients_kept: int = CLIENTS_KEPT,
        trusted_certificates_pem: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`allowed` are networks reachable besides the internet. `timeout_seconds` is for one whole exchange.

        `trusted_certificates_pem` is trusted besides the system's authorities.
        """
        self._allowed = tuple(allowed)
        self._own_resolver = None if resolver else SystemResolver()
        self._resolver: Resolver = resolver or self._own_resolver or SystemResolver()
        self._connect_timeout = timedelta(seconds=connect_timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._answer_limit_bytes = answer_limit_bytes
        self._name_seconds = name_seconds
        self._clients_kept = clients_kept
        self._certificates = trusted_certificates_pem
        self._clock = clock
        #: Where URLs lead that were posted to lately.
        self._servers: OrderedDict[str, _Server] = OrderedDict()
        #: Of each name the addresses that may be reached, and until when they are believed.
        self._names: OrderedDict[str, tuple[float, tuple[IpAddress, ...]]] = OrderedDict()
        self._clients: OrderedDict[_ClientKey, _PinnedClient] = OrderedDict()
        self._asking: dict[str, asyncio.Task[tuple[IpAddress, ...]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self) -> None:
        """Close all connections. Exchanges still open end with NoAnswer."""
        self._closed = True
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        for task in self._closing | set(self._asking.values()):
            task.cancel()
        if self._own_resolver is not None:
            self._own_resolver.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> HttpAnswer:
        """Make one exchange. Raises Refused, NotSent or NoAnswer; every status is an answer, redirects too."""
        if self._closed:
            raise NotSent("the client is closed")
        limit_seconds = min(timeout_seconds or self._timeout_seconds, self._timeout_seconds)
        deadline = self._clock() + limit_seconds
        server = self._server(url)
        reachable = server.reachable if server.is_literal else self._known_addresses(server.name)
        if reachable is None:
            try:
                async with asyncio.timeout(limit_seconds):
                    reachable = await self._addresses(server.name)
            except TimeoutError:
                raise NotSent("the name was not resolved in time") from None
        if not reachable:
            raise Refused("the URL leads to an address that is not allowed")
        return await self._exchange(method, url, server, reachable, body, headers, deadline)

    async def _exchange(
        self,
        method: str,
        url: str,
        server: "_Server",
        reachable: Sequence[IpAddress],
        body: bytes,
        headers: Mapping[str, str] | None,
        deadline: float,
    ) -> HttpAnswer:
        tried = reachable[:_ADDRESSES_TRIED]
        for address in tried:
            client = self._client(_LITERALS if server.is_literal else (server.name, address))
            try:
                with client:
                    return await self._try(client, method, url, body, headers, deadline)
            except NotSent as error:
                if address is tried[-1] or self._clock() >= deadline:
                    # Perhaps the name has moved.
                    self._names.pop(server.name, None)
                    raise
                failed = error
        raise failed

    async def _try(
        self,
        client: "_PinnedClient",
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        deadline: float,
    ) -> HttpAnswer:
        try:
            request = client.client.request(method, url).timeout(
                timedelta(seconds=max(0.001, deadline - self._clock()))
            )
            if headers:
                request = request.headers(headers)
            if body:
                request = request.body_bytes(body)
            exchange = request.streamed_read_buffer_limit(self._answer_limit_bytes).build_streamed()
        except ValueError:
            # Not chained: the text of the cause may quote the URL.
            raise Refused("the request cannot be built: its URL or a header is malformed") from None
        try:
            async with exchange as answer:
                content = await answer.body_reader.read(self._answer_limit_bytes)
                names = {header.lower(): value for header, value in answer.headers.items()}
                return HttpAnswer(answer.status, names, bytes(content or b""))
        except PyreqwestError as error:
            raise _honest(error) from None

    def _server(self, url: str) -> "_Server":
        server = self._servers.get(url)
        if server is None:
            name, literal = _host_of(url)
            server = self._servers[url] = _Server(
                name, literal is not None, () if literal is None else self._allowed_of((literal,))
            )
            while len(self._servers) > _URLS_KEPT:
                self._servers.popitem(last=False)
        return server

    def _known_addresses(self, name: str) -> tuple[IpAddress, ...] | None:
        """The addresses of a name that may be reached; None if it has to be resolved first."""
        known = self._names.get(name)
        if known is None or self._clock() >= known[0]:
            return None
        self._names.move_to_end(name)
        return known[1]

    async def _addresses(self, name: str) -> tuple[IpAddress, ...]:
        asking = self._asking.get(name)
        if asking is None:
            asking = asyncio.create_task(self._ask(name))
            self._asking[name] = asking
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        try:
            # Shared: one caller's time-out is not the others'.
            return await asyncio.shield(asking)
        except OSError:
            raise NotSent("the name cannot be resolved") from None

    async def _ask(self, name: str) -> tuple[IpAddress, ...]:
        found = self._allowed_of(await self._resolver.addresses(name))
        self._names[name] = (self._clock() + self._name_seconds, found)
        while len(self._names) > self._clients_kept:
            self._names.popitem(last=False)
        return found

    def _allowed_of(self, addresses: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
        return tuple(address for address in addresses if is_allowed(address, self._allowed))

    def _client(self, key: "_ClientKey") -> "_PinnedClient":
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _PinnedClient(self._build(*key))
            self._drop_unused()
        else:
            self._clients.move_to_end(key)
        return client

    def _build(self, name: str, address: IpAddress | None) -> Client:
        builder = (
            ClientBuilder()
            .connect_timeout(self._connect_timeout)
            .follow_redirects(False)
            .referer(False)
            .no_proxy()
            .http1_only()
            # A bomb stays the few bytes it was sent as.
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .pool_idle_timeout(timedelta(seconds=30))
            .user_agent("switchboard")
        )
        if address is not None:
            builder = builder.resolve(name, str(address), 0)
        if self._certificates:
            builder = builder.add_root_certificate_pem(self._certificates)
        return builder.build()

    def _drop_unused(self) -> None:
        """Close the clients used longest ago. Those in use are left for later: nobody's exchange is cut."""
        surplus = len(self._clients) - self._clients_kept
        for key in [key for key, client in self._clients.items() if client.users == 0][: max(0, surplus)]:
            task = asyncio.create_task(self._clients.pop(key).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _PinnedClient:
    """A client whose one name means one checked address, and how many exchanges use it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users = 0

    def __enter__(self) -> None:
        self.users += 1

    def __exit__(self, *_: object) -> None:
        self.users -= 1

    async def close(self) -> None:
        with contextlib.suppress(PyreqwestError):
            await self.client.close()


class _Server(Struct, frozen=True):
    """Where a URL leads."""

    name: str
    #: Its name is an address.
    is_literal: bool
    #: That address, if it may be reached.
    reachable: tuple[IpAddress, ...]


def _host_of(url: str) -> tuple[str, IpAddress | None]:
    """The host of a URL as the client will understand it: a name, or a literal address in any spelling."""
    try:
        parsed = Url(url)
    except ValueError:
        raise Refused("the URL is malformed") from None
    if parsed.scheme not in ("http", "https") or not parsed.host_str:
        raise Refused("the URL names no server that can be reached by HTTP")
    return parsed.host_str, parse_address(parsed.host_str)


def _honest(error: PyreqwestError) -> NotSent | NoAnswer:
    causes = _causes(error)
    if _CONNECTING in causes:
        return NotSent(f"no connection: {causes[-1]}")
    return NoAnswer(causes[-1] if causes else type(error).__name__)


def _causes(error: PyreqwestError) -> list[str]:
    """What happened, outermost first, without the texts that quote the URL."""
    if not isinstance(error, DetailedPyreqwestError):
        return []
    causes = error.details.get("causes") or []
    return [cause["message"] for cause in causes if " for url " not in cause["message"]]
