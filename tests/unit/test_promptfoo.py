"""Tests of promptfoo as prompts with checks; what would run code or read another file is reported, never done."""

import io
import itertools
import json
from typing import Any

import pytest

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.promptfoo import read_promptfoo
from tasks.files.read.promptfoo.assertions import written
from tasks.files.read.promptfoo.cases import Untaken
from tasks.files.read.promptfoo_signs import is_promptfoo, is_promptfoo_config
from tasks.files.read.reading import Problem, Reading


def load(content: str, name: str = "f", **reading: Any) -> tuple[list[NewPrompt], list[tuple[int, str]]]:
    """The prompts, and the problems by line."""
    prompts, problems = [], []
    for line, one in read_promptfoo(io.BytesIO(content.encode()), name, Reading(**reading)):
        if isinstance(one, Problem):
            assert (one.line, bool(one.remedy)) == (line, True)
            problems.append((line, one.reason))
        else:
            prompts.append(one)
    return prompts, problems


def test_a_table_of_tests() -> None:
    header = "q,__expected1,__expected2,__prefix,__suffix,__description,__metric,__metadata:category,__metadata:tags[]"
    row = '首都？,北京,"contains-any: 北京, Beijing",答：,。,geography,accuracy,地理,"cn,a\\,b"'
    prompts, problems = load(f"{header},__threshold,__config:__expected2:threshold\n{row},0.5,0.9\n")
    checks = [
        {"type": "equals", "value": "北京", "metric": "accuracy"},
        {"type": "contains-any", "value": ["北京", "Beijing"], "threshold": 0.9, "metric": "accuracy"},
    ]
    assert problems == []
    assert prompts == [
        NewPrompt(
            "答：首都？。",
            category="地理",
            reference="北京",
            checks=({"type": "assert-set", "assert": checks, "threshold": 0.5},),
            tags=("geography", "cn", "a,b"),
            variables={"q": "首都？"},
        )
    ]


@pytest.mark.parametrize(
    ("cell", "check"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        ("equals: 30", {"type": "equals", "value": "30"}),
        ("contains:a:b", {"type": "contains", "value": "a:b"}),
        ("not-icontains: x", {"type": "not-icontains", "value": "x"}),
        ("is-json", {"type": "is-json"}),
        ("regex:^a\nb$", {"type": "regex", "value": "^a\nb$"}),
        ("similar(0.9):hello", {"type": "similar", "value": "hello", "threshold": 0.9}),
        ("similar:hello", {"type": "similar", "value": "hello", "threshold": 0.8}),
        ("levenshtein(5): hello", {"type": "levenshtein", "value": "hello", "threshold": 5.0}),
        ("grade: is polite", {"type": "llm-rubric", "value": "is polite"}),
        ("contain:Paris", {"type": "equals", "value": "contain:Paris"}),
    ],
)
def test_the_language_of_expected(cell: str, check: dict[str, Any]) -> None:
    assert written(cell) == check


CODE = ["javascript: 1", "fn:x", "eval:x", "not-python: x", "python:x", "file://a.py", "webhook:http://a"]


@pytest.mark.parametrize("cell", CODE)
def test_code_and_other_files_are_never_taken(cell: str) -> None:
    with pytest.raises(Untaken):
        written(cell)
    prompts, problems = load(f"q,__expected\na,{cell}\nb,\n")
    assert ([prompt.text for prompt in prompts], [line for line, _ in problems]) == (["b"], [2])


CONFIG = """
description: capitals
providers: [openai:gpt-4]
prompts:
  - 'Where is {{city}}?'
  - '[{"role": "system", "content": "In {{lang}}"}, {"role": "user", "content": "{{city}}"}]'
defaultTest:
  vars: {lang: zh}
  assert: [{type: not-contains, value: sorry}]
tests:
  - vars: {city: [Paris, Rome], n: 3}
    assert: [{type: contains, value: '{{city}}'}]
    options: {suffix: ' Now.'}
  - vars: {city: Bonn}
    assert: [{type: javascript, value: 'true'}]
  - file://more.yaml
"""


def test_a_configuration_is_its_prompts_times_its_tests() -> None:
    prompts, problems = load(CONFIG)
    assert [prompt.text for prompt in prompts] == [
        "Where is Paris? Now.",
        "Paris Now.",
        "Where is Rome? Now.",
        "Rome Now.",
    ]
    assert [prompt.system for prompt in prompts[:2]] == [None, "In zh"]
    assert prompts[2].checks == ({"type": "not-contains", "value": "sorry"}, {"type": "contains", "value": "Rome"})
    assert prompts[0].variables == {"lang": "zh", "city": "Paris", "n": "3"}
    assert [line for line, _ in problems] == [14, 16]


def test_json_and_lines_of_json_are_read_alike() -> None:
    tests = [{"vars": {"q": "a"}, "assert": [{"type": "equals", "value": "b"}]}, {"vars": {"q": "c"}}]
    expected = load("- vars: {q: a}\n  assert: [{type: equals, value: b}]\n- vars: {q: c}\n")
    assert [(prompt.text, prompt.reference) for prompt in expected[0]] == [("a", "b"), ("c", None)]
    assert load(json.dumps(tests)) == load("\n".join(map(json.dumps, tests))) == expected
    assert load(json.dumps({"tests": tests}, indent=1)) == expected


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("{{q | upper}}", "filter"),
        ("{% if q %}x{% endif %}", "block"),
        ("{{other}}", "no such variable"),
        ("file://p.txt", "lies elsewhere"),
        ("prompts/*.txt", "name of a file"),
        ("exec:./p.sh", "lies elsewhere"),
        ('[{"role": "user"}]', "no role or no text"),
    ],
)
def test_prompts_that_are_not_taken_are_told(prompt: str, told: str) -> None:
    prompts, problems = load(json.dumps({"prompts": [prompt, "{{q}}!"], "tests": [{"vars": {"q": "a"}}]}))
    assert [one.text for one in prompts] == ["a!"]
    assert len(problems) == 1
    assert told in problems[0][1]


def test_tests_without_prompts_need_a_template_where_they_have_several_variables() -> None:
    table = "a,b,__expected\n1,2,3\n"
    with pytest.raises(InvalidInput, match=r"template.*a, b"):
        load(table)
    assert load(table, template="{{a}}+{{b}}?")[0][0].text == "1+2?"
    assert load("a,prompt,__expected\n1,2,3\n")[0][0].text == "2"


LEVELS = (f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in itertools.pairwise("abcdefgh"))
BOMB = "a: &a [1, 1]\n" + "".join(LEVELS)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("tests: " + "[" * 100_000 + "]" * 100_000, "levels deep"),
        ("tests: !!python/object/apply:os.system [ls]", "no YAML that is taken"),
        ("tests: [a\nprompts: b: c", "line 2"),
        ("tests: &a [*a]", "aliases"),
        (BOMB, "aliases"),
    ],
    ids=["nested", "tag", "broken", "endless", "bomb"],
)
def test_yaml_of_strangers_is_bounded(content: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        load(content, name="tests.yaml")


def test_what_is_promptfoo() -> None:
    assert is_promptfoo(["q", "__expected2"])
    assert is_promptfoo(["__metadata:x"])
    assert not is_promptfoo(["q", "__init__", "expected"])
    assert is_promptfoo_config(CONFIG.encode())
    assert is_promptfoo_config(b"# a comment\n- vars:\n    q: a\n")
    assert is_promptfoo_config(b'{"tests": [')
    assert not is_promptfoo_config(b"Write a poem\ntests:\n")
    assert not is_promptfoo_config(b'{"evalId": 1, "results": [{"vars": {}}]}')
    assert not is_promptfoo_config(b'{"prompt": "tests"}')
