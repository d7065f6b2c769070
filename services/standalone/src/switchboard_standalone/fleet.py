"""The services of one `switchboard up`: which processes, on which ports, with which environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, structs
from pydantic_settings import BaseSettings

from switchboard.embedded import PortTaken, free_port
from switchboard.embedded.port import LOOPBACK, is_free
from switchboard.secrets import KeyRing
from switchboard.settings import PREFIX, SettingsError, read_settings
from switchboard_callback_delivery.settings import DeliverySettings
from switchboard_channel_adapter.settings import AdapterSettings
from switchboard_ingress.settings import IngressSettings
from switchboard_router.settings import RouterSettings
from switchboard_simulator.settings import SimulatorSettings
from switchboard_standalone.home import Home, Ports
from switchboard_standalone.schema_settings import SchemaSettings
from switchboard_standalone.supervisor import Service

SIMULATOR: Final = "simulator"
INGRESS: Final = "ingress"
ADAPTER: Final = "channel-adapter"

#: Every service and what it can be told, in the order of starting. Stopping goes the other way.
SETTINGS: Final[Mapping[str, type[BaseSettings]]] = {
    SIMULATOR: SimulatorSettings,
    "callback-delivery": DeliverySettings,
    ADAPTER: AdapterSettings,
    "router": RouterSettings,
    INGRESS: IngressSettings,
}
_TALKS_OUTSIDE: Final = ("callback-delivery", ADAPTER)
#: What a process needs of the system it runs on, besides its settings.
_SYSTEM: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
#: Stands for what is decided while the rest is checked.
_ANY: Final = {
    "host": LOOPBACK, "port": 0, "smpp_port": 0, "ordinal": 0, "ports_file": None, "postgres_dsn": "postgresql://",
    "kafka_bootstrap": LOOPBACK, "secret_keys": KeyRing.generate(), "submissions_log": None, "callbacks_log": None,
}  # fmt: skip
#: Decided here for each process: a value for all of them would be wrong for all but one.
_DECIDED: Final = frozenset(_ANY)
#: Webhooks on this machine, the simulator's receiver first of all, are what development is about.
LOOPBACK_NETWORKS: Final = "127.0.0.0/8,::1/128"


class BadOption(Exception):
    """An option of the command makes no sense. The text is one line that names it."""


class Place(Struct, frozen=True):
    """What all services share."""

    postgres_dsn: str
    kafka_bootstrap: str
    secret_keys: str


class Wishes(Struct, frozen=True, kw_only=True):
    """What whoever starts it may ask for."""

    simulator: bool = True
    #: How many processes of a service, by its name.
    instances: Mapping[str, int] = {}
    #: More environment, by the name of a service or of one of its instances.
    environment: Mapping[str, Mapping[str, str]] = {}
    #: The same, for the first start only: a process told to crash crashes once.
    first_environment: Mapping[str, Mapping[str, str]] = {}

    def check(self) -> None:
        """Raises BadOption for a service there is not."""
        for name in self.instances:
            if name not in SETTINGS or name == SIMULATOR:
                raise BadOption(f"there are no instances of {name!r}; there are {_named(SETTINGS)}")
        known = {instance for name in SETTINGS for instance in self.names_of(name)} | SETTINGS.keys()
        for name in (*self.environment, *self.first_environment):
            if name not in known:
                raise BadOption(f"there is no service {name!r}; there are {_named(known)}")

    def names_of(self, service: str) -> list[str]:
        """What the processes of a service are called."""
        if service == SIMULATOR:
            return [SIMULATOR] if self.simulator else []
        return [service, *(f"{service}-{ordinal}" for ordinal in range(1, self.instances.get(service, 1)))]


class Fleet(Struct, frozen=True):
    """What to run, and where it answers."""

    services: tuple[Service, ...]
    urls: Mapping[str, str]


def choose_ports(port: int, kept: Ports, *, simulator: bool) -> Ports:
    """`port` for ingress and the next for the simulator; with 0 those of the last run, else free ones.

    Raises PortTaken when somebody else listens on a port that was asked for.
    """
    if port:
        for wanted, what in ((port, INGRESS), (port + 1, SIMULATOR))[: 2 if simulator else 1]:
            if not is_free(wanted):
                raise PortTaken(
                    f"{what} cannot listen on {LOOPBACK}:{wanted}: the port is taken; "
                    "stop what listens there, or choose another with --port"
                )
        return Ports(ingress=port, simulator=port + 1, smpp=_again(kept.smpp))
    return Ports(ingress=_again(kept.ingress), simulator=_again(kept.simulator), smpp=_again(kept.smpp))


def build(home: Home, place: Place, ports: Ports, wishes: Wishes) -> Fleet:
    """Describe every process."""
    urls: dict[str, str] = {}
    services: list[Service] = []
    adapter_port = free_port()
    for service in SETTINGS:
        own = _own(service, home, place, ports, f"http://{LOOPBACK}:{adapter_port}", wishes)
        for ordinal, name in enumerate(wishes.names_of(service)):
            first = ordinal == 0
            chosen = {INGRESS: ports.ingress, SIMULATOR: ports.simulator, ADAPTER: adapter_port}.get(service)
            port = chosen if chosen and first else free_port()
            urls[name] = f"http://{LOOPBACK}:{port}"
            decided = {"host": LOOPBACK, "port": str(port), "ordinal": str(ordinal)}
            services.append(
                Service(
                    name=name,
                    # -P: what lies in the folder it is started from is not imported.
                    command=(sys.executable, "-P", "-m", f"switchboard_{service.replace('-', '_')}"),
                    environment={
                        **_system(),
                        **_asked(SETTINGS[service]),
                        **_variables({**own, **decided}),
                        **wishes.environment.get(service, {}),
                        **wishes.environment.get(name, {}),
                    },
                    first_environment={
                        **(wishes.first_environment.get(service, {})),
                        **(wishes.first_environment.get(name, {})),
                    },
                    ready_url=f"{urls[name]}/health/ready",
                    # What is on its way to the world outside arrives.
                    stops_before=(SIMULATOR,) if service in _TALKS_OUTSIDE and wishes.simulator else (),
                )
            )
    return Fleet(tuple(services), urls)


def check_settings() -> None:
    """Read what our own environment says to every service, before anything is started. Raises SettingsError."""
    keys = os.environ.get(f"{PREFIX}SECRET_KEYS")
    if keys is not None:
        _check_keys(keys)
    kinds: list[type[BaseSettings]] = [*SETTINGS.values(), SchemaSettings]
    for kind in kinds:
        decided = {name: value for name, value in _ANY.items() if name in kind.model_fields}
        read_settings(kind, **decided)


def _check_keys(keys: str) -> None:
    try:
        KeyRing.parse(keys)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}SECRET_KEYS: {error}") from None


def _own(service: str, home: Home, place: Place, ports: Ports, adapter_url: str, wishes: Wishes) -> dict[str, str]:
    """What one service is told, whatever its instance."""
    if service == SIMULATOR:
        return {
            "smpp_port": str(ports.smpp),
            "submissions_log": str(home.submissions_log),
            "callbacks_log": str(home.callbacks_log),
        }
    shared = {name: getattr(place, name) for name in structs.asdict(place)}
    if service == "callback-delivery" and "SWITCHBOARD_ALLOWED_NETWORKS" not in os.environ:
        shared["allowed_networks"] = LOOPBACK_NETWORKS
    if service == ADAPTER and wishes.simulator:
        shared |= {"public_url": adapter_url, "telegram_api_url": f"http://{LOOPBACK}:{ports.simulator}"}
    return shared


def _asked(kind: type[BaseSettings]) -> dict[str, str]:
    """Settings in our own environment that this service knows and that are not decided for it."""
    names = set(kind.model_fields) - _DECIDED
    if kind is AdapterSettings:
        return {**_named_in_environment(names), **_starting(f"{PREFIX}TELEGRAM_")}
    return _named_in_environment(names)


def _named_in_environment(names: set[str]) -> dict[str, str]:
    variables = [f"{PREFIX}{name.upper()}" for name in sorted(names)]
    return {name: os.environ[name] for name in variables if name in os.environ}


def _starting(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def _system() -> dict[str, str]:
    return {name: os.environ[name] for name in _SYSTEM if name in os.environ}


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}


def _again(port: int) -> int:
    return port if port and is_free(port) else free_port()


def _named(names: Mapping[str, object] | set[str] | Sequence[str]) -> str:
    return ", ".join(sorted(names))
