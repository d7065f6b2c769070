"""Writes `schemas/` from the code: `python -m switchboard_standalone.schemas`, with `--check` only compares.

openapi.json      the HTTP API, from ingress's own types
asyncapi.json     topics, keys and records, from the topic catalogue
events/*.json     callback bodies, by trigger
channels/*.json   what each channel is, from its manifest

and, outside of `schemas/`, the pages of the documentation that come from the code (`pages`).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

import switchboard_channels
from switchboard.callbacks.bodies import BODIES
from switchboard.channel.manifest import Manifest
from switchboard.channel.registry import manifests
from switchboard.topics import TOPICS, Topic
from switchboard_ingress import openapi
from switchboard_standalone.pages import pages

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, Any]:
    """Every document by its path below `schemas/`."""
    found: dict[str, Any] = {"openapi.json": openapi.document(), "asyncapi.json": asyncapi()}
    for trigger, kind in BODIES.items():
        found[f"events/{trigger.lower()}.json"] = {"$schema": _DIALECT, **msgspec.json.schema(kind)}
    for channel, manifest in manifests(switchboard_channels).items():
        found[f"channels/{channel.lower()}.json"] = describe(manifest)
    return found


def asyncapi() -> dict[str, Any]:
    """The topics as an AsyncAPI 3 document."""
    records = [kind for topic in TOPICS for kind in topic.record_types]
    _, schemas = msgspec.json.schema_components(records, ref_template="#/components/schemas/{name}")
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for topic in TOPICS:
        channels[topic.subject] = _channel(topic)
        at = {"$ref": f"#/channels/{_pointer(topic.subject)}"}
        for service in topic.producers:
            operations[f"{service}/{topic.subject}"] = {"action": "send", "channel": at}
        for group in topic.groups:
            operations[f"{group}/{topic.subject}"] = {"action": "receive", "channel": at}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Switchboard topics", "version": "1"},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def describe(manifest: Manifest) -> dict[str, Any]:
    """A channel's facts, without what only code can use."""
    return {
        "channel": manifest.channel,
        "title": manifest.title,
        "owner": manifest.owner,
        "connection": manifest.connection,
        "app_scoped": manifest.app_scoped,
        "receipts": sorted(manifest.receipts),
        "horizon_seconds": manifest.horizon_seconds,
        "native_ttl": manifest.native_ttl,
        "can_retract": manifest.can_retract,
        "deduplicates": manifest.deduplicates,
        "send_timeout_seconds": manifest.send_timeout_seconds,
        "content": dict(manifest.content),
        "properties": sorted(manifest.properties),
        "credentials": msgspec.to_builtins(manifest.credentials),
        "account_settings": manifest.account_settings and manifest.account_settings.model_json_schema(),
    }


def render(document: Any) -> str:
    """A document as it is written: readable, and the same on every machine."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def drift(folder: Path) -> list[str]:
    """The files below `folder` that are not as the code says: changed, missing or left over."""
    expected = {name: render(document) for name, document in documents().items()}
    present = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}
    wrong = {name for name in expected if name not in present or (folder / name).read_text("utf-8") != expected[name]}
    return sorted(wrong | (present - expected.keys()))


def write(folder: Path) -> None:
    """Make `folder` as the code says."""
    for name in drift(folder):
        (folder / name).unlink(missing_ok=True)
    for name, document in documents().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(document), "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` compare. Returns the exit code."""
    root, folder = Path(), Path("schemas")
    if "--check" not in arguments:
        write(folder)
        for page, text in pages(root).items():
            page.write_text(text, "utf-8")
        return 0
    wrong = [f"schemas/{name}" for name in drift(folder)]
    for page, text in pages(root).items():
        if not page.exists() or page.read_text("utf-8") != text:
            wrong.append(str(page))
    for name in wrong:
        print(f"{name} is not as the code says: run `make schemas`", file=sys.stderr)
    return 1 if wrong else 0


def _channel(topic: Topic[Any]) -> dict[str, Any]:
    messages = {
        kind.__name__: {"payload": {"$ref": f"#/components/schemas/{kind.__name__}"}} for kind in topic.record_types
    }
    described: dict[str, Any] = {
        "address": topic.name(),
        "description": f"Key: {topic.key}.",
        "messages": messages,
    }
    if "{channel}" in topic.subject:
        described["parameters"] = {"channel": {"description": "A channel's name in lower case."}}
    return described


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
