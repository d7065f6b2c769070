"""What a lane is: its id, its limits, its state, and the moments rules reckon with.

Rules count time in whole microseconds since 1970, the database's own resolution, so that slots are exact.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, LaneId
from switchboard.lanes.gate import Gate

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class LaneKind(StrEnum):
    """What waits in a lane."""

    #: Attempts of one app on one channel.
    DISPATCH = "dispatch"
    #: Nothing waits here: attempts of all apps that share a provider account also need a slot here.
    ACCOUNT = "account"
    #: Callbacks to one endpoint.
    ENDPOINT = "endpoint"


class Limits(Struct, frozen=True):
    """How fast a lane goes. Written to the lane whenever it is locked with others than it has."""

    #: Units a second: messages, or the provider's unit (segments, recipient pairs) in an account's lane.
    per_second: float
    #: Attempts under way at most, from their slot to their end.
    max_in_flight: int


class Lane(Struct):
    """The state of one lane, locked or as it was seen. Mutable: many rules work on it before it is saved once."""

    id: LaneId
    kind: LaneKind
    interval_ns: int
    slowdown: float
    tat_us: int
    waiting: int
    in_flight: int
    max_in_flight: int
    gate: Gate
    last_sequence: int
    owner: str | None
    token: int
    lease_until: datetime | None

    @property
    def paced_interval_ns(self) -> int:
        """Nanoseconds from one unit to the next, as slowed down by throttling."""
        return self.interval_ns if self.slowdown == 1 else int(self.interval_ns * self.slowdown)


def dispatch_lane(app_id: AppId, channel: ChannelName) -> LaneId:
    """The lane in which an app's attempts on one channel wait."""
    return LaneId(f"dispatch:{app_id}:{channel}")


def account_lane(account: AccountKey) -> LaneId:
    """The lane of a provider account, shared by all its apps."""
    return LaneId(f"account:{account}")


def endpoint_lane(endpoint: str) -> LaneId:
    """The lane of callbacks to one endpoint; `endpoint` is what callback-delivery calls it."""
    return LaneId(f"endpoint:{endpoint}")


def kind_of(lane: LaneId) -> LaneKind:
    """Read a lane's kind from its id. Raises ValueError if it has none."""
    return LaneKind(lane.partition(":")[0])


def microseconds(moment: datetime) -> int:
    """Whole microseconds from 1970 to an aware `moment`."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds_since_1970: int) -> datetime:
    """The moment that many microseconds after the beginning of 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds_since_1970)
