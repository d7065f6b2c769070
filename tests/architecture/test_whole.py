"""Things that are true of the whole: crash points, topics, the schema, what may stand in the tree."""

import re
import subprocess
from pathlib import Path

from switchboard.crash import CRASH_POINTS
from switchboard.store.migrate import known_migrations
from switchboard.topics import TOPICS

ROOT = Path(__file__).parents[2]
#: Files that are read for what may not stand in them.
READ = {".py", ".md", ".toml", ".txt", ".sql", ".yaml", ".json", ""}
SOURCES = sorted(path for part in ("shared", "services") for path in (ROOT / part).glob("*/src/**/*.py"))


def test_every_crash_point_is_in_the_code_and_every_one_in_the_code_is_known():
    called = {name for path in SOURCES for name in re.findall(r'crash_point\(\s*"([a-z_.]+)"', path.read_text("utf-8"))}

    assert called == set(CRASH_POINTS)


def test_every_topic_has_a_producer_and_a_consumer_and_one_name():
    assert all(topic.producers and topic.groups for topic in TOPICS)
    assert len({topic.subject for topic in TOPICS}) == len(TOPICS)


def test_every_record_type_belongs_to_one_topic_and_says_what_it_is():
    kinds = [kind for topic in TOPICS for kind in topic.record_types]

    assert len({kind.__name__ for kind in kinds}) == len(kinds)
    assert all(kind.__doc__ for kind in kinds)


def test_migrations_are_numbered_one_by_one_name():
    numbers = [migration.number for migration in known_migrations()]

    assert numbers == sorted(set(numbers))


def test_the_tree_holds_no_path_of_one_machine_and_no_download_address():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    forbidden = re.compile(r"/(?:root|home)/[a-z]+/|https?://[^\s\"']+\.(?:whl|tgz|jar|crate|deb)\b")
    texts = {name: ROOT / name for name in files if Path(name).suffix in READ and (ROOT / name).is_file()}
    guilty = [name for name, path in texts.items() if forbidden.search(path.read_text("utf-8", errors="ignore"))]

    assert guilty == []


def test_nothing_is_called_utils():
    names = {path.stem for path in SOURCES}

    assert not names & {"utils", "helpers", "common", "manager", "misc"}
