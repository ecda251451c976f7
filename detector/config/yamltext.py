"""The part of YAML the configuration is written in, read without YAML 1.1's surprises.

Plain scalars mean what they look like: `true` and `false` (also `True`, `TRUE`), `null`, `~` or nothing, decimal whole
numbers without leading zeros, decimal numbers (`0.5`, `1e3`). Everything else is text, so `no`, `on`, `12:30`, `017`,
`0x1F`, `1_000` and `2026-11-22` reach the validation as they were written and are refused there by name if text is not
what the key takes. Anchors, aliases, tags, duplicate keys and several documents are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_BYTES: Final = 1_000_000
_MAX_DEPTH: Final = 30
_MAX_SHOWN: Final = 60

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
# 18 digits stay within int64; what is longer is text and refused with its key.
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")

Path = tuple[str | int, ...]


class YamlError(Exception):
    """The text is not what we read. `line` counts from 1, `path` is the key concerned; either may be unknown."""

    def __init__(self, what: str, todo: str, *, line: int | None = None, path: Path = ()) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo
        self.line = line
        self.path = path


@dataclass(slots=True)
class Tree:
    """Plain Python values, and for every path how the value was written (for error messages)."""

    value: Any
    written: dict[Path, str] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Composes nodes; resolves no scalar; refuses anchors, aliases and tags, and nesting that has no purpose."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (the base class declares it so)
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlError("anchors and aliases are not allowed", "Write the value out", line=line)
        if getattr(event, "tag", None) not in (None, "!"):
            raise YamlError(f"the tag `{event.tag}` is not allowed", "Remove it", line=line)
        if self._depth >= _MAX_DEPTH:
            raise YamlError("the values are nested too deeply", "Remove a level", line=line)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def parse(text: str) -> Tree:
    """Read one document. Raises YamlError. Nothing at all (or comments alone) is a tree whose value is None."""
    try:
        node = compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        if isinstance(error, yaml.composer.ComposerError):
            raise YamlError("more than one document", "Keep one and remove the `---` lines", line=line) from None
        raise YamlError(f"not valid YAML: {error.problem or error.context}", "Correct it", line=line) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {str(error).splitlines()[0]}", "Correct it") from None
    tree = Tree(None)
    if node is not None:
        tree.value = _plain(node, (), tree.written)
    return tree


def parse_value(text: str) -> Tree:
    """Read the value of an override: a scalar, or a list or mapping in brackets. Raises YamlError."""
    if not text.strip():
        raise YamlError("no value is given", "Write one after the `=`; `null` switches a thing off")
    if "\n" in text:
        raise YamlError("the value has several lines", "Write it on one line")
    try:
        node = compose(text)
    except yaml.YAMLError:
        node = None
    if node is None or (isinstance(node, yaml.CollectionNode) and not node.flow_style):
        raise YamlError(f"`{_shorten(text)}` is no YAML scalar, [list] or {{mapping}}", "Put text in quotes")
    tree = Tree(None)
    tree.value = _plain(node, (), tree.written)
    return tree


def compose(text: str) -> yaml.Node | None:
    """The nodes of one document, with their places in the text; None if there is nothing. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _plain(node: yaml.Node, path: Path, written: dict[Path, str]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        text: str = node.value
        written[path] = _shorten(text) if node.style is None else _shorten(f'"{text}"')
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise YamlError("the text holds half a character (a lone surrogate)", "Correct it", path=path)
        return _resolve(text) if node.style is None else text
    if isinstance(node, yaml.SequenceNode):
        written[path] = "a list"
        return [_plain(child, (*path, number), written) for number, child in enumerate(node.value)]
    written[path] = "a mapping"
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("a key is not text", "Write `key: value`", line=line, path=path)
        key = key_node.value
        if key in result:
            raise YamlError("the key is given twice", "Keep one of them", line=line, path=(*path, key))
        result[key] = _plain(value_node, (*path, key), written)
    return result


def _resolve(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _LEADING_ZERO.match(text) and not text.lstrip("+-").isdigit():
        return float(text)
    return text


def _shorten(text: str) -> str:
    line = " ".join(text.split()) or "nothing"
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 1] + "…"
