"""Options that several commands share, and what their values are."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from tasks.commands.group import DEFAULT_URL
from tasks.files.read.reading import Column, Encoding, FileFormat, Separator
from tasks.sampling import check_settings

Command = Callable[..., None]
SEPARATORS = {"tab": Separator.TAB, r"\t": Separator.TAB}
READING = ("format", "encoding", "separator", "columns", "template", "system", "category", "leave_out")


def of_server(command: Command) -> Command:
    """Add the option that says where the server is."""
    return click.option("--url", default=DEFAULT_URL, show_default=True, envvar="TOUCHSTONE_URL")(command)


def of_run(command: Command) -> Command:
    """Add the argument and the option of a command about one run."""
    return click.argument("run_id", metavar="RUN")(of_server(command))


def names(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    """For ``callback``: names separated by commas."""
    return [name.strip() for name in (value or "").split(",") if name.strip()]


def settings(_: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, Any]:
    """For ``callback``: decoding settings as ``name=value``; ``stop`` may be given several times."""
    given: dict[str, Any] = {}
    for name, text in _pairs(values, parameter):
        if name == "stop":
            given[name] = [*given.get(name, []), text]
        else:
            given[name] = _number(text)
    return {**check_settings(given)}


def of_reading(command: Command) -> Command:
    """Add the options that say how a file of prompts is read; what is not given is guessed by the server."""
    options = [
        click.option("--format", "format_", type=click.Choice([*map(str, FileFormat)])),
        click.option("--encoding", type=click.Choice([*map(str, Encoding)])),
        click.option("--separator", callback=_separator, help="Between columns: , ; or tab."),
        click.option(
            "--column",
            "columns",
            multiple=True,
            callback=_columns,
            metavar="WHAT=NAME",
            help=f"The column that holds {', '.join(Column)}; no name: none does. May be given several times.",
        ),
        click.option("--template", help="A prompt with {{name}} for the value of a column."),
        click.option("--system", help="The system message of every prompt that has none."),
        click.option("--category", help="The category of every prompt that has none."),
        click.option("--leave-out", is_flag=True, help="Leave out lines with problems, instead of refusing FILE."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def reading_of(given: dict[str, Any]) -> dict[str, Any]:
    """How a file is read, as the API takes it, out of a command's options, which lose it."""
    given["format"] = given.pop("format_")
    values = {name: given.pop(name) for name in READING}
    return {name: value for name, value in values.items() if value}


def _separator(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    chosen = SEPARATORS.get(value or "", value)
    if chosen is not None and chosen not in list(Separator):
        raise click.BadParameter(f"{value!r} is none of , ; and tab.", param=parameter)
    return chosen


def _columns(_: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    found = dict(_pairs(values, parameter))
    for what in found:
        if what not in list(Column):
            raise click.BadParameter(f"{what!r} is none of {', '.join(Column)}.", param=parameter)
    return found


def _pairs(values: Iterable[str], parameter: click.Parameter) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter(f"{name!r} needs a value; write {parameter.metavar}.", param=parameter)
    return [(name, value) for name, _, value in pairs]


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
