"""What is counted, for dashboards: per verdict, never per endpoint or app."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from switchboard_callback_delivery.event import Outcome

_NAMESPACE: Final = "switchboard_callback"


class DeliveryMetrics:
    """Counters of one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        where = registry or CollectorRegistry()
        self._tries = Counter(f"{_NAMESPACE}_tries", "Tries by what they came to", ["verdict"], registry=where)
        self.parked = Counter(f"{_NAMESPACE}_parked", "Events parked without a try", registry=where)
        self.replayed = Counter(f"{_NAMESPACE}_replayed", "Records of events that were known already", registry=where)
        self.fenced = Counter(f"{_NAMESPACE}_fenced", "Outcomes of leases that were lost", registry=where)
        self.in_flight = Gauge(f"{_NAMESPACE}_in_flight", "Tries under way", registry=where)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes that are committed."""
        counts = Tally("none" if outcome.verdict is None else outcome.verdict.value for outcome in outcomes)
        for verdict, count in counts.items():
            self._tries.labels(verdict).inc(count)
