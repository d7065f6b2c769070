"""The words an operator gives an app are read whole, or refused by name."""

import pytest

from switchboard.rules.consent import Keyword, Wish
from switchboard_standalone.commands.consent import read_words
from switchboard_standalone.trouble import Refused


def test_words_are_read_from_json_and_from_a_file(tmp_path):
    keywords = '[{"word": "Abmelden", "wish": "OPT_OUT", "language": "de"}]'
    words = f'{{"keywords": {keywords}, "texts": {{"OPT_OUT:de": "Ende."}}}}'
    file = tmp_path / "words.json"
    file.write_text(words)

    settings = read_words(words)

    assert settings.keywords == (Keyword("Abmelden", Wish.OPT_OUT, "de"),)
    assert settings.texts == {"OPT_OUT:de": "Ende."}
    assert read_words(f"@{file}") == settings


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("{", "not what is expected"),
        ('{"keywords": [{"word": "x", "wish": "LEAVE"}]}', "keywords"),
        ('{"keywords": [{"word": " ", "wish": "OPT_OUT"}]}', "keywords"),
        ('{"texts": {"GOODBYE:en": "x"}}', "GOODBYE:en"),
        ('{"texts": {"OPT_OUT": "x"}}', "OPT_OUT"),
        ("@nowhere.json", "nowhere.json"),
    ],
)
def test_what_is_wrong_with_words_is_named(words, names):
    with pytest.raises(Refused, match=names):
        read_words(words)
