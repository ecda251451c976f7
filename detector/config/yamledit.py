"""Changing one setting of a configuration file and not a byte beside it: comments, order and line ends stay.

A library that reads a file and rewrites it would keep the comments, but not the spacing and the line ends. Here the
parser says where a value stands, and only that is replaced.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from detector.config.yamltext import YamlError, compose, parse

STEP: Final = 2
"""Spaces by which a new section is indented."""


def put(text: str, path: tuple[str, ...], value: str) -> str:
    """The text with `value` (YAML on one line, such as ``{a: 1}``) at `path`; missing sections are added.

    Where a mapping in block style stands at `path` and `value` is a mapping, keys it has are set one by one and others
    stay. Raises YamlError if the text is not what we read, or does not take the value there.
    """
    before = parse(text).value
    if before is not None and not isinstance(before, dict):
        raise YamlError("the configuration is no mapping", "Write `key: value` lines")
    changed = _put(text, path, value)
    _check(before or {}, changed, path, parse(value).value)
    return changed


def _put(text: str, path: tuple[str, ...], value: str) -> str:
    root = compose(text)
    if root is None:
        return _appended(text, path, value)
    node, depth = root, 0
    key: yaml.Node | None = None
    while depth < len(path) and isinstance(node, yaml.MappingNode):
        found = next(((k, v) for k, v in node.value if k.value == path[depth]), None)
        if found is None:
            break
        key, node = found
        depth += 1
    rest = path[depth:]
    if rest and isinstance(node, yaml.MappingNode) and (node.value or depth):
        return _added(text, node, rest, value)
    if rest and not _is_null(node):
        raise YamlError(f"{'.'.join(path[:depth])} has no keys of its own", "Correct it", path=path[:depth])
    if isinstance(node, yaml.MappingNode) and not node.flow_style and not rest:
        new = parse(value).value
        if isinstance(new, dict):
            for name in new:
                text = _put(text, (*path, name), _scalar_of(value, name))
            return text
    return _replaced(text, key, node, _nested(rest, value))


def _replaced(text: str, key: yaml.Node | None, node: yaml.Node, value: str) -> str:
    begin, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and begin == end and key is not None:
        # Nothing is written: the parser found it somewhere behind the colon.
        begin = end = text.index(":", key.end_mark.index) + 1
        value = f" {value}"
    elif isinstance(node, yaml.CollectionNode) and not node.flow_style:
        raise YamlError("a section stands where a value is to be written", "Correct it")
    return text[:begin] + value + text[end:]


def _added(text: str, node: yaml.MappingNode, rest: tuple[str, ...], value: str) -> str:
    """Add a key to a mapping, as its first one: what follows the last may be comments on something else."""
    if node.flow_style:
        at = node.start_mark.index + 1
        entry = f"{rest[0]}: {_nested(rest[1:], value)}"
        return text[:at] + entry + (", " if node.value else "") + text[at:]
    first = node.value[0][0].start_mark
    end = "\r\n" if "\r\n" in text else "\n"
    lines = _block(rest, value, first.column)
    at = first.index - first.column
    return text[:at] + "".join(line + end for line in lines) + text[at:]


def _appended(text: str, path: tuple[str, ...], value: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    return text + "".join(line + end for line in _block(path, value, 0))


def _block(path: tuple[str, ...], value: str, column: int) -> list[str]:
    lines = [f"{' ' * (column + STEP * depth)}{name}:" for depth, name in enumerate(path)]
    lines[-1] += f" {value}"
    return lines


def _nested(path: tuple[str, ...], value: str) -> str:
    for name in reversed(path):
        value = f"{{{name}: {value}}}"
    return value


def _scalar_of(value: str, name: str) -> str:
    """How the value of a key is written within a mapping in flow style."""
    node = compose(value)
    if not isinstance(node, yaml.MappingNode):
        raise TypeError(value)
    found = next(v for k, v in node.value if k.value == name)
    return value[found.start_mark.index : found.end_mark.index]


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null", "Null", "NULL")


def _check(before: dict[str, Any], text: str, path: tuple[str, ...], value: Any) -> None:
    """Whatever was changed, the file has to say the same as before but for the new value."""
    section = before
    for name in path[:-1]:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
    old = section.get(path[-1])
    section[path[-1]] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    if parse(text).value != before:
        raise YamlError("the value cannot be put in without touching something else", "Write it by hand")
