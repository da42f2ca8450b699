"""Tests of promptfoo as prompts: each of its prompts with the variables of each of its tests.

No code is executed and no other file is read: tests and prompts that ask for it are reported.
"""

from collections.abc import Iterator
from typing import IO

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.files.read.promptfoo.cases import Case, Untaken
from tasks.files.read.promptfoo.config import config_cases, load_config
from tasks.files.read.promptfoo.filling import prompt_of
from tasks.files.read.promptfoo.tables import table_cases
from tasks.files.read.promptfoo.templates import Template, templates
from tasks.files.read.promptfoo_signs import is_promptfoo_config
from tasks.files.read.reading import FileFormat, Problem, Reading

LOOK_BYTES = 4096
PASSED_ON = "prompt"  # the variable that is the prompt where there is no other, as promptfoo has it
YAML_NAMES = (".yaml", ".yml")

__all__ = ["read_promptfoo"]

Read = Iterator[tuple[int, NewPrompt | Problem]]


def read_promptfoo(stream: IO[bytes], name: str, reading: Reading) -> Read:
    """Prompts by the line of their test (from 1), or what is wrong with a test or a prompt.

    Raises `InvalidInput` for a file that is no such thing, and where no prompt can be told: then ``reading`` needs a
    template.
    """
    stream.seek(0)
    beginning = stream.read(LOOK_BYTES)
    stream.seek(0)
    is_json = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
    is_yaml = not is_json and (name.lower().endswith(YAML_NAMES) or is_promptfoo_config(beginning))
    given: list[Template | Problem] = []
    if reading.format is FileFormat.CSV or not (is_json or is_yaml):
        cases = table_cases(stream, name, reading)
    else:
        config, lines = load_config(stream, name, is_yaml=is_yaml)
        given, cases = list(templates(config)), config_cases(config, lines)
    yield from ((problem.line, problem) for problem in given if isinstance(problem, Problem))
    prompts = [one for one in given if isinstance(one, Template)]
    if given and not prompts:
        return
    for case in cases:
        if isinstance(case, Problem):
            yield case.line, case
            continue
        prompts = prompts or [_own_template(case, name, reading)]
        for prompt in prompts:
            yield case.line, _prompt(prompt, case, reading)


def _own_template(case: Case, name: str, reading: Reading) -> Template:
    """For a file without prompts: what the person gave, else the variable that is the prompt, else the only one."""
    if reading.template:
        return Template(reading.template)
    if PASSED_ON in case.variables or len(case.variables) == 1:
        variable = PASSED_ON if PASSED_ON in case.variables else next(iter(case.variables))
        return Template(f"{{{{{variable}}}}}")
    there = ", ".join(list(case.variables)[:20]) or "none"
    raise InvalidInput(f"{name} has tests without a prompt; give a template with its variables ({there}).", "template")


def _prompt(prompt: Template, case: Case, reading: Reading) -> NewPrompt | Problem:
    try:
        return prompt_of(prompt, case, reading)
    except Untaken as error:
        return Problem(case.line, error.reason, error.remedy)
