"""What of a prompt stands under which key of a record: made once for all records with the same keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.conversation import MAX_PROMPT_CHARACTERS
from tasks.files.read.columns import listed, mapped, plain
from tasks.files.read.reading import Column, FileFormat, Reading
from tasks.files.read.record import NoColumn, Notes
from tasks.prompt_schema import MAX_CUSTOM_ID, MAX_MANY, MAX_NAME

CONVERSATIONS = ("messages", "conversations", "conversation", "turns")  # lists, which go before any column of text
LIMITS = {
    Column.SYSTEM: MAX_PROMPT_CHARACTERS,
    Column.CATEGORY: MAX_NAME,
    Column.REFERENCE: MAX_PROMPT_CHARACTERS,
    Column.CUSTOM_ID: MAX_CUSTOM_ID,
}
SAME_COLUMNS = (FileFormat.CSV, FileFormat.XLSX, FileFormat.PARQUET)  # in all records
CHOOSE = "Choose the column that holds the prompts, give a template, or read the file as lines"


@dataclass(frozen=True)
class Plan:
    """Keys of a record by what they hold.

    ``said`` is that of the prompt, the messages or the turns, none where a template says it all. ``more`` is text that
    belongs behind an instruction, ``choices`` are those of a question, ``metadata`` an object of further variables.
    """

    said: str | None
    columns: Mapping[Column, str]
    more: str | None
    choices: str | None
    metadata: str | None
    tags: tuple[str, ...]
    texts: tuple[tuple[str, str, int], ...]
    variables: tuple[str, ...]

    @property
    def used(self) -> dict[Column, str]:
        """The columns with that of the prompt, whatever it is called."""
        return {**self.columns} | ({Column.PROMPT: self.said} if self.said is not None else {})

    @property
    def is_plain(self) -> bool:
        return self.said is not None and not (self.more or self.choices or self.metadata)

    def plain_prompt(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The fields of a prompt that is nothing but short texts, which most are; none for any other record."""
        if self.said is None or self.tags or not self.is_plain:
            return None
        text = record[self.said]
        if type(text) is not str or "{{" in text:
            return None
        fields: dict[str, Any] = {"text": text}
        for field, key, limit in self.texts:
            value = record[key]
            if type(value) is int:
                value = str(value)
            if type(value) is not str or len(value) > limit:
                return None
            if value:
                fields[field] = value
        if self.variables:
            variables = {name: record[name] for name in self.variables}
            for value in variables.values():
                if type(value) is not str or len(value) > MAX_PROMPT_CHARACTERS:
                    return None
            fields["variables"] = variables
        return None if "{{" in fields.get("system", "") else fields


def plan_for(keys: tuple[str, ...], reading: Reading, notes: Notes) -> Plan:
    """The plan for records with these keys. Raises `NoColumn`."""
    columns = mapped(keys, reading.columns)
    by_name = {plain(key): key for key in reversed(keys)}
    said = columns.get(Column.PROMPT)
    by_hand = (reading.columns or {}).get(Column.PROMPT)
    if not by_hand:
        said = next((by_name[name] for name in CONVERSATIONS if name in by_name), said)
    elif said is None:
        raise NoColumn(f"There is no column {by_hand!r}; there are {listed(keys)}.", f"{CHOOSE}.")
    if said is None and reading.template is None:
        raise NoColumn(f"No column is known to hold prompts; there are {listed(keys)}.", f"{CHOOSE}.")
    if reading.format in SAME_COLUMNS:
        for column, name in (reading.columns or {}).items():
            if name and column not in columns:
                raise NoColumn(
                    f"There is no column {name!r}; there are {listed(keys)}.", f"Choose another as {column}."
                )
    left = {key: None for key in keys if key not in {*columns.values(), said}}
    taken = {name: by_name[name] for name in ("input", "choices", "metadata") if by_name.get(name) in left}
    if plain(said or "") != "instruction":
        taken.pop("input", None)
    tags = [columns[Column.TAGS]] if Column.TAGS in columns else []
    variables = [key for key in left if key not in taken.values() and 0 < len(key) <= MAX_NAME]
    if len(variables) > MAX_MANY:
        notes.add(f"Only the first {MAX_MANY} further columns are kept as variables.")
    if len(variables) + len(taken) < len(left):
        notes.add(f"Columns without a name, or with one over {MAX_NAME} characters, are left aside.")
    return Plan(
        said,
        columns,
        taken.get("input"),
        taken.get("choices"),
        taken.get("metadata"),
        tuple(tags),
        tuple((column.value, name, LIMITS[column]) for column, name in columns.items() if column in LIMITS),
        tuple(variables[:MAX_MANY]),
    )


def scalar(value: Any) -> str | None:
    """A text, number or truth value as text; none for null. Raises `TypeError` for a list or an object."""
    if isinstance(value, str):
        return value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | Mapping):
        raise TypeError(value)
    return str(value)
