"""Finds the channels: every folder of the channels package with a manifest is one (DESIGN 3)."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

from switchboard.channel.contract import RequestAdapter, SessionAdapter
from switchboard.channel.manifest import Manifest
from switchboard.identity import CONTRACT_CHANNELS, ChannelName


class BrokenChannel(Exception):
    """A channel folder that does not keep the contract."""


def folders(package: ModuleType) -> list[str]:
    """The channel folders of `package`, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg)


def manifests(package: ModuleType) -> Mapping[ChannelName, Manifest]:
    """The manifest of every channel folder."""
    found: dict[ChannelName, Manifest] = {}
    for folder in folders(package):
        manifest = _part(package, folder, "manifest").MANIFEST
        if manifest.channel not in CONTRACT_CHANNELS or manifest.channel.lower() != folder:
            raise BrokenChannel(f"{folder}: the manifest's channel {manifest.channel!r} is not this folder's")
        found[manifest.channel] = manifest
    return found


def renderers(package: ModuleType) -> Mapping[ChannelName, Any]:
    """The `render` module of every channel folder: `render.units(message, channel_properties) -> int` and its own."""
    return {ChannelName(folder.upper()): _part(package, folder, "render") for folder in folders(package)}


def adapter(package: ModuleType, channel: ChannelName) -> RequestAdapter | SessionAdapter:
    """The adapter of one channel, made anew."""
    return cast(RequestAdapter | SessionAdapter, _part(package, channel.lower(), "adapter").ADAPTER())


def _part(package: ModuleType, folder: str, part: str) -> ModuleType:
    try:
        return importlib.import_module(f"{package.__name__}.{folder}.{part}")
    except ModuleNotFoundError as error:
        raise BrokenChannel(f"{folder}: {error}") from error
