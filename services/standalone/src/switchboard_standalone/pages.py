"""Pages of the documentation that come from the code: settings, failover, and the README's table of channels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import switchboard_channels
from switchboard.channel.manifest import Manifest, Support
from switchboard.channel.registry import manifests
from switchboard.rules.table import truth_table
from switchboard.settings import PREFIX, CommonSettings
from switchboard_callback_delivery.settings import DeliverySettings
from switchboard_channel_adapter.settings import AdapterSettings
from switchboard_channels.telegram.adapter import TelegramSettings
from switchboard_ingress.settings import IngressSettings
from switchboard_router.settings import RouterSettings

SETTINGS_PAGE: Final = Path("docs/reference/settings.md")
FAILOVER_PAGE: Final = Path("docs/reference/failover.md")
README: Final = Path("README.md")
_BEGIN: Final = "<!-- channels: begin -->\n"
_END: Final = "<!-- channels: end -->\n"

_SERVICES: Final[Mapping[str, type[BaseSettings]]] = {
    "ingress": IngressSettings,
    "router": RouterSettings,
    "channel-adapter": AdapterSettings,
    "callback-delivery": DeliverySettings,
}
_CONTENT: Final = {
    "text_message": "text",
    "media_message": "media",
    "choice_message": "choices",
    "card_message": "cards",
    "carousel_message": "carousels",
    "location_message": "locations",
    "list_message": "lists",
    "contact_info_message": "contacts",
}
_SIGNS: Final = {Support.NATIVE: "yes", Support.TEXT: "as text", Support.UNSUPPORTED: "no"}


def settings_page() -> str:
    """Every setting of every service, with its unit and its default."""
    parts = [
        "# Settings\n",
        "Generated from the code by `make schemas`.\n",
        "Settings are read once, from the environment, when a process starts.",
        "A missing or wrong one stops the process with one line that names the variable.",
        "`switchboard up` sets all of them for its own processes.\n",
        "## Every service\n",
        _table(CommonSettings.model_fields),
    ]
    for service, kind in _SERVICES.items():
        own = {name: field for name, field in kind.model_fields.items() if name not in CommonSettings.model_fields}
        parts += [f"## {service}\n", _table(own) if own else "No settings of its own.\n"]
    parts += ["## Channels in the channel-adapter\n", _table(TelegramSettings.model_fields, _prefix(TelegramSettings))]
    parts += ["The simulator's are on [its own page](simulator.md).\n"]
    return "\n".join(parts)


def channel_table() -> str:
    """What each channel of this installation carries."""
    header = ["Channel", *_CONTENT.values(), "reports"]
    lines = [_row(header), _row(["---"] * len(header))]
    lines += [_row(_cells(manifest)) for manifest in manifests(switchboard_channels).values()]
    return "\n".join(lines) + "\n"


def with_channels(readme: str) -> str:
    """The README with its table of channels as the code has it. Raises ValueError if the markers are gone."""
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{README} has no place for the table of channels")
    return f"{before}{begin}{channel_table()}{end}{after}"


def pages(root: Path) -> dict[Path, str]:
    """Each generated page below `root`, as it should be."""
    return {
        SETTINGS_PAGE: settings_page(),
        FAILOVER_PAGE: truth_table(),
        README: with_channels((root / README).read_text("utf-8")),
    }


def _cells(manifest: Manifest) -> list[str]:
    carried = [_SIGNS[manifest.content.get(kind, Support.UNSUPPORTED)] for kind in _CONTENT]
    reports = ", ".join(sorted(status.lower() for status in manifest.receipts)) or "acceptance only"
    return [f"{manifest.channel} ({manifest.title})", *carried, reports]


def _table(fields: Mapping[str, FieldInfo], prefix: str = PREFIX) -> str:
    lines = [_row(["Variable", "What it says", "Default"]), _row(["---"] * 3)]
    for name, field in fields.items():
        lines.append(_row([f"`{prefix}{name.upper()}`", field.description or "", _default(field)]))
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "unset" if value in (None, "") else f"`{getattr(value, 'value', value)}`"


def _prefix(kind: type[BaseSettings]) -> str:
    return str(kind.model_config.get("env_prefix", PREFIX))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
