"""What documents say is there: links lead somewhere, targets and commands exist, decisions are counted and listed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from switchboard_standalone.cli import app

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "services/*/*.md",
        "shared/*/*.md",
        "shared/**/src/**/*.md",
        "tests/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
#: A line of a code block, or a word in backticks, that begins with one of our commands.
_COMMAND = re.compile(r"(?:^|`)(?:\.venv/bin/)?switchboard ([a-z-]+(?: [a-z]+)?)", re.MULTILINE)
_TARGET = re.compile(r"(?:^|`)make ([a-z][a-z-]*)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def names(documents: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in documents]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def commands() -> Iterator[str]:
    """Every command, and every command of a group with its group."""
    root = get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        yield name
        yield from (f"{name} {inner}" for inner in getattr(command, "commands", ()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_somewhere(document: Path):
    links = [link for link in _LINK.findall(document.read_text("utf-8")) if "://" not in link]

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_targets_of_make_exist(document: Path):
    assert set(_TARGET.findall(document.read_text("utf-8"))) <= targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_commands_exist(document: Path):
    known = set(commands())
    groups = {name.partition(" ")[0] for name in known if " " in name}
    unknown = []
    for said in _COMMAND.findall(document.read_text("utf-8")):
        first = said.partition(" ")[0]
        # What follows a command that is no group is its argument.
        if (said if first in groups and " " in said else first) not in known:
            unknown.append(said)

    assert unknown == []


def test_every_target_that_the_list_shows_has_its_line_of_help():
    helped = set(re.findall(r"^([a-z-]+):.*## \S", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert {
        "run", "demo", "test", "test-all", "bench", "fmt", "lint", "types", "schemas", "lock", "check"
    } <= helped  # fmt: skip


def test_readme_is_short_enough_to_read_and_long_enough_to_start():
    assert 100 <= len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 180


def test_decisions_are_counted_without_gaps_and_each_is_listed_with_its_title():
    files = sorted(DECISIONS.glob("[0-9]*.md"))
    index = (DECISIONS / "README.md").read_text("utf-8")

    assert [path.name[:4] for path in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for number, path in enumerate(files, 1):
        title = path.read_text("utf-8").splitlines()[0].removeprefix(f"# {number}. ")
        assert f"[{number:04}]({path.name}) {title}" in index, path.name
