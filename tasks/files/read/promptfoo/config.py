"""Test cases in a configuration of promptfoo, or in a list of tests: YAML, JSON or an object a line."""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from tasks.errors import InvalidInput
from tasks.files.read.answers.json_records import json_records
from tasks.files.read.promptfoo.assertions import NOT_READ, configured, refuse_elsewhere
from tasks.files.read.promptfoo.cases import Case, Untaken
from tasks.files.read.promptfoo.tables import number, together
from tasks.files.read.promptfoo.yaml_nodes import load_yaml
from tasks.files.read.reading import Problem

MAX_COMBINATIONS = 10_000


def load_config(stream: IO[bytes], name: str, *, is_yaml: bool) -> tuple[Mapping[str, Any], list[int]]:
    """A configuration and the lines of its tests; a list of tests alone is one, too. Raises `InvalidInput`."""
    if is_yaml:
        value, lines = load_yaml(stream, name)
    else:
        records = list(json_records(stream, name))
        alone = len(records) == 1 and "vars" not in records[0][1]
        value = records[0][1] if alone else [record for _, record in records]
        lines = [] if alone else [line for line, _ in records]
    if isinstance(value, list):
        value = {"tests": value}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is no configuration of promptfoo; it needs prompts and tests.", "file")
    return value, lines


def config_cases(config: Mapping[str, Any], lines: list[int]) -> Iterator[Case | Problem]:
    """Its tests with what all have from ``defaultTest``, or what is wrong with each; one without variables if none."""
    tests = config.get("tests", [{}])
    usual = config.get("defaultTest") or {}
    if "scenarios" in config:
        yield Problem(1, "scenarios are not taken over.", "Write each combination as a test of its own.")
    if not isinstance(tests, list) or not isinstance(usual, Mapping):
        yield Problem(1, "tests or defaultTest lie in another file.", NOT_READ)
        return
    for index, test in enumerate(tests):
        line = lines[index] if index < len(lines) else index + 1
        try:
            yield from _cases(line, test, usual)
        except Untaken as error:
            yield Problem(line, error.reason, error.remedy)


def _cases(line: int, test: Any, usual: Mapping[str, Any]) -> Iterator[Case]:
    if not isinstance(test, Mapping) or "path" in test:
        raise Untaken("The test lies in another file.", NOT_READ)
    options = {**_object(usual, "options"), **_object(test, "options")}
    if "transform" in options or "transformVars" in options:
        raise Untaken("The test has a transform, which would have to be executed.", "Remove it.")
    given = {**_object(usual, "vars"), **_object(test, "vars")}
    refuse_elsewhere(given)
    first = [] if options.get("disableDefaultAsserts") else _list(usual, "assert")
    threshold = test.get("threshold", usual.get("threshold"))
    checks = together(
        [configured(one) for one in (*first, *_list(test, "assert"))],
        None if threshold is None else number(threshold, "threshold"),
    )
    for variables in _combinations(given):
        yield Case(
            line,
            variables,
            checks,
            _text(test.get("description", "")),
            {**_object(usual, "metadata"), **_object(test, "metadata")},
            _text(options.get("prefix", "")),
            _text(options.get("suffix", "")),
        )


def _combinations(given: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Each value of a variable that is a list, with each of the others."""
    values = [value if isinstance(value, list) else [value] for value in given.values()]
    number_of = 1
    for several in values:
        number_of *= len(several)
        if number_of > MAX_COMBINATIONS:
            raise Untaken(f"Its variables have more than {MAX_COMBINATIONS} combinations.", "Write them as tests.")
    for chosen in itertools.product(*values):
        yield dict(zip(map(str, given), map(_text, chosen), strict=True))


def _object(test: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = test.get(key) or {}
    if isinstance(value, Mapping):
        return value
    raise Untaken(f"{key} is no object or lies in another file.", NOT_READ)


def _list(test: Mapping[str, Any], key: str) -> list[Any]:
    value = test.get(key) or []
    if isinstance(value, list):
        return value
    raise Untaken(f"{key} is no list.", "Write it as a list.")


def _text(value: Any) -> str:
    """A value as a prompt shows it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
