"""YAML from strangers: no tags of Python, no nesting that ends the process, no aliases that grow without end."""

from typing import IO, Any

import yaml

from tasks.errors import InvalidInput

MAX_BYTES = 2**23
MAX_DEPTH = 50
MAX_VALUES = 1_000_000
MAX_KEYS = 10_000


class _Loader(yaml.CSafeLoader):
    def flatten_mapping(self, node: Any) -> None:
        """Merge what ``<<`` names, one level at a time, so that merges of merges cannot grow without end."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise yaml.YAMLError(f"more than {MAX_KEYS} keys are merged into one object")


def load_yaml(stream: IO[bytes], name: str) -> tuple[Any, list[int]]:
    """What a YAML file says, and the lines (from 1) of its ``tests`` or of its items. Raises `InvalidInput`."""
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"{name} is YAML of more than {MAX_BYTES} bytes; write its tests as CSV or JSONL.", "file")
    try:
        _look_at_depth(content, name)
        loader = _Loader(content)
        try:
            node = loader.get_single_node()
            value = loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise InvalidInput(f"{name}{where} is no YAML that is taken: {problem}; correct it.", "file") from None
    _look_at_size(value, name)
    return value, _lines(node)


def _look_at_depth(content: bytes, name: str) -> None:
    """Before anything is built: the parser of C calls itself for each level."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            where = f"{name}, line {event.start_mark.line + 1}"
            raise InvalidInput(f"{where} is nested more than {MAX_DEPTH} levels deep; make it flatter.", "file")


def _look_at_size(value: Any, name: str) -> None:
    """Aliases share what they name, but count as often as they stand, since they will be written out."""
    left, waiting = MAX_VALUES, [value]
    while waiting:
        item = waiting.pop()
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        left -= 1 + len(inner)
        if left < 0:
            raise InvalidInput(f"{name} has more than {MAX_VALUES} values with its aliases; split it.", "file")
        waiting += inner


def _lines(node: Any) -> list[int]:
    if isinstance(node, yaml.MappingNode):
        node = next((value for key, value in node.value if key.value == "tests"), None)
    return [item.start_mark.line + 1 for item in node.value] if isinstance(node, yaml.SequenceNode) else []
