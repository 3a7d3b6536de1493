"""What servers, models and data said, as text that no terminal and no CI log takes for a command. Everything that is printed comes through here."""

import json
import re
import unicodedata

# Other, separators of lines: Cc, Cf, Zl and Zp but for the controls that JSON escapes by itself.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f]"
)
# GitHub's commands at the beginning of a line, and those of it, Azure and TeamCity anywhere in it.
_COMMAND = re.compile(r"^(\s*):(?=:)")
_OLD_COMMAND = re.compile(r"##(?=\w*\[)")


def clean(text: str) -> str:
    """Text without control characters and direction marks: a model's name cannot move the cursor."""
    return "".join(char if unicodedata.category(char)[0] != "C" else "�" for char in text)


def one_line(text: str) -> str:
    """`clean`, and no command of a CI system."""
    return _OLD_COMMAND.sub("## ", _COMMAND.sub(r"\1: ", clean(text)))


def plain(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(one_line(line.expandtabs(4)) for line in text.splitlines())


def escaped(text: str) -> str:
    """JSON with every character escaped that is not seen: the same values, and nothing that a terminal or a CI log obeys."""
    return _OLD_COMMAND.sub(r"#\\u0023", _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text))
