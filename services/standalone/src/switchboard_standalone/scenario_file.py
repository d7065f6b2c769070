"""Reads a scenario from YAML. What is wrong in it is told with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from switchboard.simulate import Scenario
from switchboard_standalone.fleet import BadOption

#: Where something stands in a document: keys and places in lists.
Place = tuple[str | int, ...]
#: Deeper than any scenario.
MAX_DEPTH: Final = 20


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises BadOption: `file:line: field: what is expected`, for all that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'no UTF-8'})") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise BadOption(f"{path}:{line}: {error.problem or 'no YAML'}") from None
    except yaml.YAMLError:
        raise BadOption(f"{path}:1: no YAML") from None
    lines: dict[Place, int] = {(): 1}
    if root is not None:
        lines.update(_places(root, (), 1, path))
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise BadOption("; ".join(_problems(path, error, lines))) from None


def _problems(path: Path, error: ValidationError, lines: dict[Place, int]) -> Iterator[str]:
    problems = error.errors(include_url=False, include_input=False)
    wrong_inside = {tuple(problem["loc"])[:size] for problem in problems for size in range(len(problem["loc"]))}
    for problem in problems:
        place: Place = tuple(problem["loc"])
        if problem["type"] == "too_short" and place in wrong_inside:
            # Its items are there; they are wrong.
            continue
        known = next(place[:size] for size in range(len(place), -1, -1) if place[:size] in lines)
        words = problem["msg"].removeprefix("Value error, ")
        field = f"{_field(place)}: " if place else ""
        yield f"{path}:{lines[known]}: {field}{words[:1].lower()}{words[1:]}"


def _field(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _places(node: yaml.Node, place: Place, line: int, path: Path) -> Iterator[tuple[Place, int]]:
    """Every place of a document with its line. Raises BadOption for a key that is there twice."""
    yield place, line
    if len(place) > MAX_DEPTH:
        # An alias inside what it stands for goes on for ever.
        raise BadOption(f"{path}:{line}: is nested too deeply")
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _places(item, (*place, number), item.start_mark.line + 1, path)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            key_line = key.start_mark.line + 1
            if name in seen:
                raise BadOption(f"{path}:{key_line}: {_field((*place, name))}: is there twice")
            seen.add(name)
            yield from _places(value, (*place, name), key_line, path)
