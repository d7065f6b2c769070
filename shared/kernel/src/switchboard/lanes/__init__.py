"""Lanes: one durable way to wait, with a rate, a bound and a gate (DESIGN 6).

- The router plans with a `LaneMemory`, or with `lock_lanes` where somebody waits (`reserve` and `release` where a
  transaction needs only one of them), and runs a `switchboard.lanes.drainer.Drainer`.
- callback-delivery locks its endpoint lanes with `lock_lanes` too, and settles them with `switchboard.lanes.endpoint`.
- Operators list, pause, resume and purge with `switchboard.lanes.operate`.
"""

from switchboard.lanes.gate import GateRule, GateState
from switchboard.lanes.lane import Lane, LaneKind, Limits, account_lane, dispatch_lane, endpoint_lane
from switchboard.lanes.locked import (
    Ask,
    AttemptKey,
    Decision,
    Ended,
    GateClosed,
    LockedLanes,
    Slot,
    Waiting,
    lanes_of,
    lock_lanes,
    release,
    reserve,
)
from switchboard.lanes.remembered import LaneMemory, SeenLanes

__all__ = [
    "Ask",
    "AttemptKey",
    "Decision",
    "Ended",
    "GateClosed",
    "GateRule",
    "GateState",
    "Lane",
    "LaneKind",
    "LaneMemory",
    "Limits",
    "LockedLanes",
    "SeenLanes",
    "Slot",
    "Waiting",
    "account_lane",
    "dispatch_lane",
    "endpoint_lane",
    "lanes_of",
    "lock_lanes",
    "release",
    "reserve",
]
