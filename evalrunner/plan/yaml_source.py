"""YAML text -> plain values, with the place of every key and value for messages.

YAML 1.2's scalars (`no` is text, `010` is ten, `1:30` is text, `1e3` and `5_000_000` are numbers), and nothing that can hurt: no code tags, no
duplicate keys, caps on size, depth and what aliases and merge keys unfold to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import BaseResolver

from evalrunner.errors import ConfigError

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # PyYAML built without libyaml

    class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):  # type: ignore[no-redef]
        def __init__(self, text: str) -> None:
            yaml.reader.Reader.__init__(self, text)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)


MAX_BYTES = 16_000_000
MAX_DEPTH = 64
MAX_UNFOLDED = 100_000

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"
_INT = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class _Composer(Composer, _Parser, BaseResolver):
    """Events come from the (C) parser, nodes from the Python composer, where depth can be capped before Python's own stack is."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark: Any = self.peek_event().start_mark  # type: ignore[union-attr]  # None only after the end
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[Node], _value: Any, implicit: Any) -> str:
        """Leave an untagged plain scalar open: YAML 1.1, which PyYAML resolves by, reads `no` as false."""
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else _TAG + "str"
        return _TAG + ("seq" if kind is SequenceNode else "map")


class Source:
    """One parsed YAML text. `value` is plain data, `place` says where a key path is written, `problems` are the mistakes that did not stop the reading
    (keys written twice, tags), as `file:line:column: what`. Raises `ConfigError` for text that is not YAML, or not safe to unfold.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self._root = self._compose(text)
        self._check_size()
        self.value = None if self._root is None else self._plain(self._root)

    def place(self, path: KeyPath, *, key: bool = False) -> str:
        """`file:line:column` of the value at `path` (or of its key), or of the nearest thing above it that is written."""
        mark, node = None, self._root
        for part in path:
            found = self._child(node, part)
            if found is None:
                break
            key_node, node = found
            mark = (key_node if key else node).start_mark
        mark = mark or (self._root.start_mark if self._root else None)
        return self.name if mark is None else f"{self.name}:{mark.line + 1}:{mark.column + 1}"

    def rows(self) -> Iterator[tuple[int, Any]]:
        """(line, value) of each item of a top-level list."""
        if isinstance(self._root, SequenceNode):
            for node, value in zip(self._root.value, self.value or (), strict=True):
                yield node.start_mark.line + 1, value

    def _compose(self, text: str) -> Node | None:
        composer = None
        try:
            composer = _Composer(text)
            return composer.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name
            raise ConfigError(f"{where}: {_syntax(error, text, mark)}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.name}: not YAML: {str(error).splitlines()[0]}") from None
        finally:
            if composer is not None and hasattr(composer, "dispose"):
                composer.dispose()

    def _check_size(self) -> None:
        """Refuse cycles, and aliases that unfold to more than a config can need, before anything unfolds them."""
        weights: dict[int, int | None] = {}

        def weigh(node: Node) -> int:
            if id(node) in weights:
                known = weights[id(node)]
                if known is None:
                    raise self._error(node, "this alias contains itself")
                return known
            weights[id(node)] = None
            children = () if isinstance(node, ScalarNode) else node.value
            total = 1 + sum(weigh(child) for item in children for child in (item if isinstance(item, tuple) else (item,)))
            if total > MAX_UNFOLDED + len(weights):
                raise self._error(node, f"its aliases unfold to more than {MAX_UNFOLDED:,} values (hint: aliases or merge keys that multiply)")
            weights[id(node)] = total
            return total

        if self._root is not None:
            weigh(self._root)

    def _plain(self, node: Node) -> Any:
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag != _TAG + ("seq" if isinstance(node, SequenceNode) else "map"):
            self._report(node, f"the tag {_shown(node.tag)} is not allowed: this is plain data")
        if isinstance(node, SequenceNode):
            return [self._plain(item) for item in node.value]
        return {key.value: self._plain(value) for key, value in self._pairs(node)} if isinstance(node, MappingNode) else None

    def _pairs(self, node: MappingNode) -> list[tuple[Node, Node]]:
        """The node's own pairs, and before them those its merge keys (`<<`) bring and it does not replace."""
        own: dict[Any, tuple[Node, Node]] = {}
        merged: dict[Any, tuple[Node, Node]] = {}
        for key, value in node.value:
            if _is_merge(key):
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    if not isinstance(source, MappingNode):
                        self._report(source, "a merge key (<<) takes a mapping or a list of mappings")
                        continue
                    for pair in self._pairs(source):
                        merged.setdefault(pair[0].value, pair)
                continue
            name = key.value
            if not isinstance(key, ScalarNode):
                self._report(key, "a key must be text")
                continue
            if name in own:
                first = own[name][0].start_mark
                self._report(key, f"{name}: written twice (hint: first at line {first.line + 1}, column {first.column + 1})")
            own[name] = (key, value)
        return list((merged | own).values())

    def _child(self, node: Node | None, part: str | int) -> tuple[Node, Node] | None:
        if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part]
        if isinstance(node, MappingNode):
            for key, value in self._pairs(node):
                if key.value == part:
                    return key, value
        return None

    def _scalar(self, node: ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _PLAIN:
            return plain_scalar(text)
        if node.tag == _TAG + "str":
            return text
        value = plain_scalar(text)
        if node.tag == _TAG + "float" and type(value) is int:
            return float(value)
        if node.tag not in {_TAG + kind for kind in ("int", "float", "bool", "null")}:
            self._report(node, f"the tag {_shown(node.tag)} is not allowed: this is plain data")
        elif node.tag != _TAG + {"NoneType": "null"}.get(type(value).__name__, type(value).__name__):
            self._report(node, f"{text!r} is not {_shown(node.tag)}")
        return value

    def _report(self, node: Node, what: str) -> None:
        problem = str(self._error(node, what))
        if problem not in self.problems:  # merge keys read a mapping more than once
            self.problems.append(problem)

    def _error(self, node: Node, what: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {what}")


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar, by YAML 1.2's core schema; underscores may group digits."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INT.fullmatch(text) and len(text) < 400:
        digits = text.replace("_", "")
        base = {"0x": 16, "0o": 8}.get(digits[:2], 10)
        return int(digits[2:] if base != 10 else digits, base)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan"))
    return text


def read_yaml(path: Path, name: str | None = None) -> Source:
    """Read and parse a file. Raises `ConfigError`."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES // 1_000_000} MB (hint: rows belong into a .jsonl or .csv file named by `data:`)")
    return Source(decode(content, name), name)


def decode(content: bytes, name: str) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        hint = " (hint: this is UTF-16)" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else ""
        raise ConfigError(f"{name}:{line}:{column}: not UTF-8: byte 0x{content[error.start]:02x}; save the file as UTF-8{hint}") from None


def _is_merge(key: Node) -> bool:
    return isinstance(key, ScalarNode) and key.value == "<<" and key.tag in {_PLAIN, _TAG + "merge"}


def _shown(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag


def _syntax(error: yaml.MarkedYAMLError, text: str, mark: Any) -> str:
    problem = error.problem or "not YAML"
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in problem or "tab" in problem:
        return f"{problem} (hint: indent with spaces, not tabs)"
    if "expected a single document" in str(error):
        return "a second document begins here (hint: one file holds one config; remove the ---)"
    if "mapping values are not allowed" in problem:
        return f"{problem} (hint: quote text that contains ': ', and check the indentation)"
    context = f", {error.context}" if error.context else ""
    return f"{problem}{context}"
