"""The webhook receivers: what each has been sent, how each behaves. They come to be when they are first used."""

from collections import OrderedDict, deque
from collections.abc import Iterator

from msgspec import Struct, structs

from switchboard_simulator.receiver.behaviour import Behaviour
from switchboard_simulator.receiver.record import ReceivedCallback, Verdict

#: Headers that name one event, whatever the try: whoever sees the same twice has a duplicate.
EVENT_HEADERS = ("webhook-id", "switchboard-event-id")


class Receiver:
    """One receiver."""

    def __init__(self, name: str, keep: int) -> None:
        self.name = name
        #: What callbacks may be signed with: several while a secret is being changed, none: nothing is checked.
        self.secrets: tuple[str, ...] = ()
        self.behaviour = Behaviour()
        #: How many requests the present behaviour has met.
        self.uses = 0
        self.received = 0
        self.verdicts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
        self.kept: deque[ReceivedCallback] = deque(maxlen=keep)
        self._events: OrderedDict[str, None] = OrderedDict()

    def behave(self, behaviour: Behaviour) -> None:
        """Treat requests this way from now on."""
        self.behaviour = behaviour
        self.uses = 0

    def treat(self, body: bytes) -> tuple[Behaviour, int | None]:
        """How to treat this request, and the status it is answered with. Counts as one use."""
        behaviour = self.behaviour
        if not behaviour.meets(body):
            return Behaviour(), 200
        status = behaviour.answered_status(self.uses)
        self.uses += 1
        self.behaviour = behaviour.used()
        return behaviour, status

    def saw(self, event: str) -> bool:
        """Remember an event. True if it is remembered already."""
        if event in self._events:
            return True
        self._events[event] = None
        if len(self._events) > 100_000:
            self._events.popitem(last=False)
        return False

    def keep(self, callback: ReceivedCallback) -> None:
        """Count a request and keep it for the inspector."""
        self.received += 1
        self.verdicts[callback.signature] += 1
        self.kept.append(callback)

    def summary(self) -> "ReceiverSummary":
        """What there is to say without the callbacks."""
        return ReceiverSummary(
            name=self.name,
            received=self.received,
            verdicts={str(verdict): count for verdict, count in self.verdicts.items() if count},
            has_secret=bool(self.secrets),
            behaviour=structs.replace(self.behaviour),
        )


class ReceiverSummary(Struct, frozen=True):
    """A receiver without what it kept, and without its secret."""

    name: str
    received: int
    verdicts: dict[str, int]
    has_secret: bool
    behaviour: Behaviour


class Receivers:
    """All receivers. Bounded: the one that came to be first is forgotten first."""

    def __init__(self, *, keep: int = 200, receivers: int = 1000) -> None:
        self._keep = keep
        self._limit = receivers
        self._receivers: OrderedDict[str, Receiver] = OrderedDict()

    def __iter__(self) -> Iterator[Receiver]:
        return iter(self._receivers.values())

    def get(self, name: str) -> Receiver | None:
        """A receiver; None if nobody used that name yet."""
        return self._receivers.get(name)

    def need(self, name: str) -> Receiver:
        """A receiver, made if it is new."""
        receiver = self._receivers.get(name)
        if receiver is None:
            receiver = self._receivers[name] = Receiver(name, self._keep)
            if len(self._receivers) > self._limit:
                self._receivers.popitem(last=False)
        return receiver

    def recent(self, limit: int) -> list[ReceivedCallback]:
        """The callbacks taken last by any receiver, newest first."""
        every = [callback for receiver in self for callback in receiver.kept]
        return sorted(every, key=lambda callback: callback.at, reverse=True)[:limit]

    def forget(self, name: str) -> bool:
        """Forget a receiver. False if there was none."""
        return self._receivers.pop(name, None) is not None

    def clear(self) -> None:
        """Forget every receiver."""
        self._receivers.clear()
