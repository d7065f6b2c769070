"""Who may know whom, checked on what is really loaded: registries import channels by name, which no linter sees."""

import subprocess
import sys

import pytest

SENDS = ("adapter", "send", "session", "webhook")


def loaded_by(module: str, then: str = "pass") -> set[str]:
    """The modules a fresh interpreter has loaded after importing `module`."""
    code = f"import sys, {module}; {then}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("service", ["switchboard_ingress.service", "switchboard_router.compose"])
def test_ingress_and_router_know_manifests_and_renderers_only(service: str):
    modules = loaded_by(
        service,
        "import switchboard_channels; from switchboard.channel.registry import manifests, renderers;"
        "manifests(switchboard_channels); renderers(switchboard_channels)",
    )

    channel_parts = {module for module in modules if module.startswith("switchboard_channels.")}
    assert any(module.endswith(".manifest") for module in channel_parts)
    assert not {module for module in channel_parts if module.rpartition(".")[2] in SENDS}


@pytest.mark.parametrize(
    "module",
    [
        "switchboard.rules.deadlines",
        "switchboard.rules.facts",
        "switchboard.rules.route",
        "switchboard.topics",
        "switchboard.callbacks.bodies",
        "switchboard.callbacks.signing",
        "switchboard.transcode",
    ],
)
def test_pure_modules_load_no_client_of_anything(module: str):
    clients = {"asyncpg", "aiokafka", "pyreqwest", "uvicorn", "faststream"}

    assert not clients & loaded_by(module)
