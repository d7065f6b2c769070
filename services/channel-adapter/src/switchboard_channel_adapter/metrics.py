"""What the channel-adapter counts. Labels are channels and closed sets, never accounts' or people's names."""

from typing import Final

from prometheus_client import Counter, Gauge

outcomes: Final = Counter("switchboard_adapter_outcomes", "Attempts ended, by outcome.", ("channel", "outcome"))
dropped: Final = Counter(
    "switchboard_adapter_dispatches_dropped", "Dispatches whose attempt was not planned any more.", ("channel",)
)
misconfigured: Final = Counter(
    "switchboard_adapter_misconfigured", "Attempts refused for our credentials or sender. Alarm on this.", ("channel",)
)
under_way: Final = Gauge(
    "switchboard_adapter_attempts_under_way", "Attempts claimed and not yet recorded.", ("channel",)
)
facts: Final = Counter("switchboard_adapter_facts", "Facts heard from providers, by kind.", ("channel", "kind"))
receipts_waiting: Final = Counter(
    "switchboard_adapter_receipts_unmatched", "Receipts that met no outcome when they came.", ("channel",)
)
receipts_expired: Final = Counter("switchboard_adapter_receipts_expired", "Receipts that never met an outcome.")
unknown_numbers: Final = Counter(
    "switchboard_adapter_inbound_unknown_number", "Messages to numbers that belong to no app.", ("channel",)
)
webhooks: Final = Counter(
    "switchboard_adapter_webhooks", "Webhook requests from providers, by the status answered.", ("channel", "status")
)
binds: Final = Gauge("switchboard_adapter_binds", "Binds held by this process.", ("channel",))
