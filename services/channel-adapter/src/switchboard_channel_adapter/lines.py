"""Ways to write to providers: one HTTP client for request channels, bound sessions for connection channels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from switchboard.channel.contract import Account, Attempt, KeepsPostbacks, RequestAdapter, SendResult, Session
from switchboard.http.client import HttpClient
from switchboard.ids import AccountKey


class Way(Protocol):
    """One chance to submit an attempt, taken at admission and used once or let go."""

    async def send(self, attempt: Attempt, account: Account) -> SendResult:
        """Submit."""
        ...

    def let_go(self) -> None:
        """Give the chance back, used or not. Twice is once."""
        ...


class Line(Protocol):
    """All ways of one channel."""

    def offer(self, account: Account) -> Way | None:
        """A way that would write now. None: there is none."""
        ...

    def is_down(self, account: Account) -> bool:
        """Whether the provider cannot be reached at all, as opposed to being busy."""
        ...

    def postbacks(self, attempt: Attempt) -> Mapping[str, str]:
        """What is to be kept before the attempt is sent."""
        ...


class RequestLine:
    """Exchanges over the pooled client: the process's slots are all that limits them."""

    def __init__(self, adapter: RequestAdapter, http: HttpClient) -> None:
        self._adapter = adapter
        self._http = http

    def offer(self, account: Account) -> Way | None:
        """Always one."""
        return _RequestWay(self._adapter, self._http)

    def is_down(self, account: Account) -> bool:
        """Never known before an exchange."""
        return False

    def postbacks(self, attempt: Attempt) -> Mapping[str, str]:
        """What the adapter wants kept."""
        return self._adapter.postbacks(attempt) if isinstance(self._adapter, KeepsPostbacks) else {}


class _RequestWay:
    def __init__(self, adapter: RequestAdapter, http: HttpClient) -> None:
        self._adapter = adapter
        self._http = http

    async def send(self, attempt: Attempt, account: Account) -> SendResult:
        return await self._adapter.send(attempt, account, self._http)

    def let_go(self) -> None:
        pass


class SessionLine:
    """Sessions that are bound, by account."""

    def __init__(self) -> None:
        self._sessions: dict[AccountKey, list[Session]] = {}
        #: Ways offered whose submission has not begun: the session does not know of them yet.
        self._promised: Counter[int] = Counter()

    def offer(self, account: Account) -> Way | None:
        """The session with most room. None if none is bound or all windows are full."""
        rooms = [(self._room(session), session) for session in self.sessions(account.key) if session.is_bound]
        if not rooms:
            return None
        room, session = max(rooms, key=lambda pair: pair[0])
        if room <= 0:
            return None
        self._promised[id(session)] += 1
        return _SessionWay(self, session)

    def is_down(self, account: Account) -> bool:
        """This process has sessions for the account, and none of them is bound."""
        sessions = self.sessions(account.key)
        return bool(sessions) and not any(session.is_bound for session in sessions)

    def postbacks(self, attempt: Attempt) -> Mapping[str, str]:
        """Nothing: connection channels have no buttons."""
        return {}

    def sessions(self, account: AccountKey) -> Sequence[Session]:
        """The sessions of an account, bound or not."""
        return self._sessions.get(account, ())

    def add(self, account: AccountKey, session: Session) -> None:
        """A session that may bind from now on."""
        self._sessions.setdefault(account, []).append(session)

    def remove(self, account: AccountKey, session: Session) -> None:
        """A session that ended."""
        self._sessions[account].remove(session)
        if not self._sessions[account]:
            del self._sessions[account]

    @property
    def bound(self) -> int:
        """Binds this process holds."""
        return sum(session.is_bound for sessions in self._sessions.values() for session in sessions)

    def kept(self, session: Session) -> None:
        """A promise was used or let go."""
        self._promised[id(session)] -= 1
        if not self._promised[id(session)]:
            del self._promised[id(session)]

    def _room(self, session: Session) -> int:
        return session.free_slots - self._promised[id(session)]


class _SessionWay:
    def __init__(self, line: SessionLine, session: Session) -> None:
        self._line = line
        self._session: Session | None = session

    async def send(self, attempt: Attempt, account: Account) -> SendResult:
        session = self._session
        assert session is not None
        # From here on the session counts it itself: it writes in the order of these calls.
        self.let_go()
        return await session.send(attempt)

    def let_go(self) -> None:
        if self._session is not None:
            self._line.kept(self._session)
            self._session = None
