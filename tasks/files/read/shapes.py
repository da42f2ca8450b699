"""From records to prompts: what each of the known shapes says, with all that belongs to it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.conversation import MAX_PROMPT_CHARACTERS, VARIABLE, NewPrompt, filled
from tasks.errors import InvalidInput
from tasks.files.read.batch_line import batch_prompt, is_batch_line
from tasks.files.read.messages import content, conversation
from tasks.files.read.plan import LIMITS, Plan, plan_for, scalar
from tasks.files.read.reading import Column, FileFormat, Reading
from tasks.files.read.record import NoColumn, Notes, Said, Unfit
from tasks.prompt_schema import MAX_MANY, MAX_NAME, PromptBody
from tasks.schema import validated

OWN = ("checks", "follows", "sampling", "variables")  # with one of these a record is as the API takes it
TABLES = (FileFormat.CSV, FileFormat.XLSX)
MAX_PLANS = 1000


class Shapes:
    """Turns the records of one file into prompts, as a reading says."""

    def __init__(self, reading: Reading, notes: Notes):
        self.reading, self.notes = reading, notes
        self.keys: dict[str, None] = {}  # of the records so far, about a hundred
        self._plans: dict[tuple[str, ...], Plan | None] = {}
        said = {"system": reading.system, "category": reading.category}
        self._defaults = {name: text for name, text in said.items() if text is not None}
        self._wanted = {name.strip() for name in VARIABLE.findall(reading.template or "")} - {""}

    def prompts(self, record: Said, index: int) -> tuple[NewPrompt, ...]:
        """The prompt of a record, or the turns of a conversation, the first of which is prompt ``index``.

        Raises `Unfit`.
        """
        if isinstance(record, NewPrompt):
            return (record,)
        if isinstance(record, str):
            return (self._completed(NewPrompt(record), {}),)
        plan = self.plan(record)
        if plan is None:
            return (self._special(record),)
        if self.reading.template is None and "{{" not in (self.reading.system or ""):
            fields = plan.plain_prompt(record)
            if fields is not None:
                return (NewPrompt.made(self._defaults | fields if self._defaults else fields),)
        text = record.get(plan.said) if plan.said else ""
        known = _Known(plan, record, self.notes)
        if type(text) is str and (plan.is_plain or plan.said is None):
            return (self._completed(known.prompt(text), record),)
        if plan.said and isinstance(text, list):
            if not (text and isinstance(text[0], Mapping | list)) or _are_turns(text):
                return self._turns(known, text, record, index)
            system, history, text, answer = conversation(text, plan.said)
            prompt = known.prompt(text)
            if system is not None and prompt.system not in (None, system):
                raise Unfit("It has two system messages.", "Give one.")
            prompt = replace(prompt, system=prompt.system if system is None else system, history=history)
            if prompt.reference is None:
                prompt = replace(prompt, reference=answer)
            return (self._completed(prompt, record),)
        if type(text) is not str:
            raise Unfit(f"{plan.said} is no text.", "Write the prompt as a text.")
        return (self._completed(known.prompt(_with_more(text, plan, record)), record),)

    def plan(self, record: Mapping[str, Any]) -> Plan | None:
        """Where a record has what; none for one of a shape that leaves no choice."""
        keys = tuple(record)
        if keys in self._plans:
            return self._plans[keys]
        if len(self.keys) < MAX_MANY:
            self.keys |= dict.fromkeys(keys)
        is_special = self.reading.format not in TABLES and (is_batch_line(record) or _is_own(record))
        found = None if is_special else plan_for(keys, self.reading, self.notes)
        if len(self._plans) > MAX_PLANS:  # of a file whose records have all different keys
            self._plans.clear()
        self._plans[keys] = found
        return found

    @property
    def columns(self) -> dict[Column, str]:
        """The columns that were used, where all records agree."""
        used = [{} if plan is None else plan.used for plan in self._plans.values()]
        names = {column: {each[column] for each in used if column in each} for column in Column}
        if not all(Column.PROMPT in each for each in used):
            del names[Column.PROMPT]
        agreed = {column: found.pop() for column, found in names.items() if len(found) == 1}
        return {column: name for column, name in agreed.items() if len(name) <= MAX_NAME}

    def _special(self, record: Mapping[str, Any]) -> NewPrompt:
        if is_batch_line(record):
            return self._completed(batch_prompt(record, self.notes), {})
        try:
            prompt = validated(PromptBody, record).to_prompt("")
        except InvalidInput as error:
            raise Unfit.of_message(error.message) from None
        return self._completed(prompt, prompt.variables or {})

    def _turns(self, known: "_Known", turns: list[Any], record: Mapping[str, Any], index: int) -> tuple[NewPrompt, ...]:
        said = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in turns]
        prompts: list[NewPrompt] = []
        for place, turn in enumerate(said):
            prompt = known.prompt(content(turn, f"turns.{place}"), place, len(said))
            if place:
                own_id = prompt.custom_id and f"{prompt.custom_id}/{place + 1}"
                prompt = replace(prompt, system=None, custom_id=own_id, follows=index + place - 1)
            prompts.append(self._completed(prompt, record))
        return tuple(prompts)

    def _completed(self, prompt: NewPrompt, record: Mapping[str, Any]) -> NewPrompt:
        """With what the reading says of every prompt: system message, category, template; and variables filled in."""
        reading = self.reading
        if reading.system is not None and prompt.system is None and prompt.follows is None:
            prompt = replace(prompt, system=reading.system)
        if reading.category is not None and prompt.category is None:
            prompt = replace(prompt, category=reading.category)
        if reading.template is not None and prompt.follows is None:
            return self._in_template(prompt, record, reading.template)
        if prompt.variables and ("{{" in prompt.text or "{{" in (prompt.system or "")):
            return _filled(prompt)
        return prompt

    def _in_template(self, prompt: NewPrompt, record: Mapping[str, Any], template: str) -> NewPrompt:
        values = {"prompt": prompt.text, **(prompt.variables or {})}
        for name in self._wanted - values.keys():
            if name not in record:
                names = ", ".join(record) or "prompt"
                raise NoColumn(f"The template has {{{{{name}}}}}, but there is no such column.", f"There are {names}.")
            try:
                values[name] = scalar(record[name]) or ""
            except TypeError:
                raise Unfit(f"{name} is in the template, but holds no text.", "Write it as a text.") from None
        return replace(_filled(replace(prompt, text=template, variables=values)), variables=prompt.variables)


class _Known:
    """What stands beside the text of a prompt in a record."""

    def __init__(self, plan: Plan, record: Mapping[str, Any], notes: Notes):
        self.plan, self.record, self.notes = plan, record, notes

    def prompt(self, text: str, turn: int = 0, turns: int = 1) -> NewPrompt:
        columns = self.plan.columns
        return NewPrompt(
            text,
            system=self._text(Column.SYSTEM) if Column.SYSTEM in columns else None,
            category=self._text(Column.CATEGORY) if Column.CATEGORY in columns else None,
            reference=self.references(turns)[turn] if Column.REFERENCE in columns else None,
            tags=self._tags() if self.plan.tags else (),
            variables=self._variables() if self.plan.variables or self.plan.metadata else None,
            custom_id=self._text(Column.CUSTOM_ID) if Column.CUSTOM_ID in columns else None,
        )

    def references(self, turns: int) -> list[str | None]:
        """The reference of each turn; one alone is that of the last turn, of several for one turn the first counts."""
        name = self.plan.columns.get(Column.REFERENCE)
        given = self.record.get(name) if name else None
        if not isinstance(given, list):
            return [*[None] * (turns - 1), self._limited(name or "", given, Column.REFERENCE)]
        if turns == 1 and len(given) > 1:
            self.notes.add(f"Only the first of several texts of {name} is the reference of a prompt.")
        texts = [self._limited(name or "", value, Column.REFERENCE) for value in given[:turns]]
        return texts + [None] * (turns - len(texts))

    def _text(self, column: Column) -> str | None:
        name = self.plan.columns[column]
        value = self.record.get(name)
        if type(value) is str and len(value) <= LIMITS[column]:
            return value or None
        return self._limited(name, value, column)

    def _limited(self, name: str, value: Any, column: Column) -> str | None:
        try:
            text = scalar(value)
        except TypeError:
            raise Unfit(f"{name} is no text.", f"Write the {column.replace('_', ' ')} as a text.") from None
        if text and len(text) > LIMITS[column]:
            raise Unfit(f"{name} has {len(text)} characters; the limit is {LIMITS[column]}.", "Shorten it.")
        return text or None

    def _tags(self) -> tuple[str, ...]:
        found: list[str] = []
        for name in self.plan.tags:
            value = self.record.get(name)
            try:
                texts = [scalar(one) for one in (value if isinstance(value, list) else [value])]
            except TypeError:
                raise Unfit(f"{name} is no list of texts.", 'Write it as ["…", "…"].') from None
            found += [text for text in texts if text]
        if len(found) > MAX_MANY or any(len(tag) > MAX_NAME for tag in found):
            raise Unfit(f"It has over {MAX_MANY} tags, or one over {MAX_NAME} characters.", "Shorten them.")
        return tuple(found)

    def _variables(self) -> dict[str, str] | None:
        found: dict[str, str] = {}
        metadata = self.record.get(self.plan.metadata) if self.plan.metadata else None
        further = metadata if isinstance(metadata, Mapping) else {}
        for name, value in (*further.items(), *((name, self.record.get(name)) for name in self.plan.variables)):
            if type(value) is not str:
                try:
                    value = scalar(value)
                except TypeError:
                    self.notes.add(f"{name} holds no text and is left aside.")
                    continue
                if value is None:
                    continue
            if len(value) > MAX_PROMPT_CHARACTERS:
                problem = f"{name} has {len(value)} characters; the limit is {MAX_PROMPT_CHARACTERS}."
                raise Unfit(problem, "Shorten it, or remove the column.")
            if 0 < len(name) <= MAX_NAME and len(found) < MAX_MANY:
                found[name] = value
        return found or None


def _is_own(record: Mapping[str, Any]) -> bool:
    return ("prompt" in record or "messages" in record) and any(key in record for key in OWN)


def _are_turns(given: list[Any]) -> bool:
    return all(isinstance(turn, Mapping) and "role" not in turn and "from" not in turn for turn in given)


def _with_more(text: str, plan: Plan, record: Mapping[str, Any]) -> str:
    """An instruction with its input, a question with its choices."""
    more = record.get(plan.more) if plan.more else None
    if more:
        text = f"{text}\n\n{content(more, str(plan.more))}"
    choices = record.get(plan.choices) if plan.choices else None
    if isinstance(choices, list) and choices:
        lines = (f"{chr(65 + place % 26)}) {content(choice, 'choices')}" for place, choice in enumerate(choices))
        text = f"{text}\n\n" + "\n".join(lines)
    return text


def _filled(prompt: NewPrompt) -> NewPrompt:
    try:
        return filled(prompt, "The prompt", keep_unknown=True)
    except InvalidInput as error:
        raise Unfit.of_message(error.message) from None
