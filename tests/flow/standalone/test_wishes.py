"""What may be asked of `switchboard up`, and what each process is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard.secrets import KeyRing
from switchboard.settings import SettingsError
from switchboard_standalone.commands.up import wishes
from switchboard_standalone.fleet import BadOption, Place, Wishes, build, check_settings
from switchboard_standalone.home import Home, Ports

PLACE = Place("postgresql://here", "127.0.0.1:9092", KeyRing.generate())
PORTS = Ports(ingress=8000, simulator=8001, smpp=8002)


@pytest.mark.parametrize(
    ("instances", "environment", "crashes", "line"),
    [
        ([], ["router"], [], "--env router: SERVICE:NAME=VALUE is expected"),
        ([], ["post:A=B"], [], "there is no service 'post'"),
        ([], [], ["router"], "--crash router: SERVICE=POINT is expected"),
        ([], [], ["router-1=router.after_commit"], "there is no service 'router-1'"),
        (["router=many"], [], [], "--instances router=many: SERVICE=NUMBER from 1 to 20 is expected"),
        (["simulator=2"], [], [], "there are no instances of 'simulator'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    instances: list[str], environment: list[str], crashes: list[str], line: str
) -> None:
    with pytest.raises(BadOption, match=line):
        wishes(True, instances, environment, crashes).check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SWITCHBOARD_TOPIC_PARTITIONS", "many"),
        ("SWITCHBOARD_SECRET_KEYS", "k1:short"),
        ("SWITCHBOARD_ALLOWED_NETWORKS", "home"),
        ("SWITCHBOARD_TOKEN_SECONDS", "1"),
        ("SWITCHBOARD_CHANNELS", "SMS, PIGEON"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=f"^{name}: "):
        check_settings()


def test_each_process_is_told_only_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_TOKEN_SECONDS", "600")
    monkeypatch.setenv("SWITCHBOARD_PORT", "9999")
    monkeypatch.setenv("SOME_SECRET", "of somebody else")

    fleet = build(Home(tmp_path), PLACE, PORTS, Wishes())

    told = {service.name: service.environment for service in fleet.services}
    assert "SWITCHBOARD_POSTGRES_DSN" not in told["simulator"]
    assert "SWITCHBOARD_SECRET_KEYS" not in told["simulator"]
    assert {name for name, environment in told.items() if "SWITCHBOARD_TOKEN_SECONDS" in environment} == {"ingress"}
    assert told["ingress"]["SWITCHBOARD_PORT"] == "8000"
    assert all("SOME_SECRET" not in environment for environment in told.values())


def test_instances_have_ordinals_ports_and_environments_of_their_own(tmp_path: Path) -> None:
    asked = wishes(True, ["router=2"], ["router:A=both", "router-1:B=second"], ["router-1=router.after_commit:3"])

    fleet = build(Home(tmp_path), PLACE, PORTS, asked)

    first, second = (service for service in fleet.services if service.name.startswith("router"))
    assert [first.name, second.name] == ["router", "router-1"]
    assert [s.environment["SWITCHBOARD_ORDINAL"] for s in (first, second)] == ["0", "1"]
    assert fleet.urls["router"] != fleet.urls["router-1"]
    assert (first.environment["A"], second.environment["A"]) == ("both", "both")
    assert "B" not in first.environment
    assert first.first_environment == {}
    assert second.first_environment == {"SWITCHBOARD_CRASH_AT": "router.after_commit:3"}


def test_without_simulator_nothing_is_pointed_at_it(tmp_path: Path) -> None:
    fleet = build(Home(tmp_path), PLACE, PORTS, Wishes(simulator=False))

    assert "simulator" not in fleet.urls
    adapter = next(service for service in fleet.services if service.name == "channel-adapter")
    assert "SWITCHBOARD_TELEGRAM_API_URL" not in adapter.environment
    assert "SWITCHBOARD_PUBLIC_URL" not in adapter.environment
