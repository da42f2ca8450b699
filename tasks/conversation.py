"""A prompt is a conversation: what was said so far, and the message that a model is to answer."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from tasks.errors import InvalidInput

MAX_PROMPTS = 1_000_000
MAX_PROMPT_CHARACTERS = 32_000
MAX_MESSAGES = 200
MAX_TURNS = 64  # of prompts that follow each other within one submission
VARIABLE = re.compile(r"\{\{([^{}]++)\}\}")


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        return {"role": self.role.value, "content": self.content}


Conversation = tuple[Message, ...]


@dataclass(frozen=True)
class NewPrompt:
    """One prompt as it was handed in.

    ``text`` is the user's message to be answered, ``system`` the system message before everything, ``history`` what
    stands between them. With ``follows``, the idx of an earlier prompt of the same run, these messages continue that
    prompt's conversation and the answer to it. ``reference`` is an answer known to be right, ``checks`` are what an
    answer has to fulfil, ``variables`` what was put into ``{{name}}``, ``custom_id`` an id of its owner's choosing,
    ``sampling`` decoding settings of this prompt's own, which go before those of its run.
    """

    text: str
    system: str | None = None
    history: Conversation = ()
    follows: int | None = None
    category: str | None = None
    reference: str | None = None
    checks: tuple[Mapping[str, Any], ...] = ()
    tags: tuple[str, ...] = ()
    variables: Mapping[str, str] | None = None
    custom_id: str | None = None
    sampling: Mapping[str, Any] | None = None

    @classmethod
    def made(cls, given: Mapping[str, Any]) -> Self:
        """The same as ``NewPrompt(**given)``, faster: a frozen dataclass assigns each of its fields by itself."""
        prompt = object.__new__(cls)
        prompt.__dict__.update(given)  # what is left out is read from the class, where defaults stand
        return prompt

    @property
    def messages(self) -> Conversation:
        """The prompt's own messages, without those of the prompt that it follows."""
        before = (Message(Role.SYSTEM, self.system),) if self.system is not None else ()
        return (*before, *self.history, Message(Role.USER, self.text))


def split(messages: Iterable[Message], field: str = "messages") -> tuple[str | None, Conversation, str]:
    """System message, history and the message to be answered. Raises `InvalidInput` where they cannot be told."""
    said = tuple(messages)
    if not said or said[-1].role is not Role.USER:
        raise InvalidInput(f"{field} must end with a message of the user, which the models answer.", field)
    if len(said) > MAX_MESSAGES:
        raise InvalidInput(f"{field} has {len(said)} messages; the limit is {MAX_MESSAGES}.", field)
    system = said[0].content if said[0].role is Role.SYSTEM else None
    history = said[0 if system is None else 1 : -1]
    if any(message.role is Role.SYSTEM for message in history):
        raise InvalidInput(f"{field} has a system message that is not the first; put it first.", field)
    return system, history, said[-1].content


def filled(prompt: NewPrompt, field: str, *, keep_unknown: bool = False) -> NewPrompt:
    """The prompt with its variables in place of ``{{name}}``; with ``keep_unknown``, other names stay as they stand.

    Raises `InvalidInput` for a name without a value, and where the values make the prompt too long.
    """
    if not prompt.variables:
        return prompt
    values = prompt.variables
    left = MAX_PROMPT_CHARACTERS

    def value(found: re.Match[str]) -> str:
        nonlocal left
        name = found[1].strip()
        if not name or (keep_unknown and name not in values):
            return found[0]
        if name not in values:
            raise InvalidInput(f"{field} has {found[0]}, but variables has no {name!r}; add it.", field)
        left -= len(values[name])
        if left < 0:  # said before the text is made: a short one may ask for gigabytes
            raise InvalidInput(f"{field} is too long with its variables; the limit is {MAX_PROMPT_CHARACTERS}.", field)
        return values[name]

    def fill(text: str) -> str:
        return VARIABLE.sub(value, text)

    history = tuple(Message(message.role, fill(message.content)) for message in prompt.history)
    system = None if prompt.system is None else fill(prompt.system)
    return replace(prompt, text=fill(prompt.text), system=system, history=history)


class PromptCheck:
    """Looks at the prompts of one submission, one after the other: what is wrong with each, given those before it."""

    def __init__(self) -> None:
        self.passed = 0
        self._root = 0  # of the conversation that is being handed in
        self._ids: set[int] = set()  # their hashes, of 64 bits: a million texts would take 130 MB

    def problem(self, prompt: NewPrompt) -> tuple[str, str] | None:
        """What keeps the next prompt from being stored, as the end of a sentence, and the field at fault, "" for all.

        A prompt with a problem is as if it had not been there.
        """
        index, follows, text = self.passed, prompt.follows, prompt.text
        if not text or text.isspace():
            return "is empty; write something or leave it out.", ""
        # Most prompts are nothing but a short text: of a million, each call that is not made counts.
        is_more = prompt.system or prompt.history or len(text) > MAX_PROMPT_CHARACTERS or "\x00" in text
        if is_more and (problem := problem_of(prompt)):
            return problem, ""
        if follows is not None:
            if not self._root <= follows < index or index - self._root >= MAX_TURNS:
                return (
                    f"follows {follows}; turns of a conversation stand one after the other, at most {MAX_TURNS}: give "
                    "the index (from 0) of an earlier turn of the same conversation."
                ), "follows"
            if prompt.system is not None:
                return "follows another, so its system message is that one's; leave its own out.", ""
        if prompt.custom_id is not None:
            digest = hash(prompt.custom_id)
            if digest in self._ids:
                return f"has the custom_id {prompt.custom_id!r} of an earlier one; ids must differ.", "custom_id"
            self._ids.add(digest)
        if follows is None:
            self._root = index
        self.passed += 1
        return None

    def problem_of_turns(self, prompts: Sequence[NewPrompt]) -> tuple[str, str] | None:
        """The same for prompts of which all pass, or none."""
        passed, root = self.passed, self._root
        for place, prompt in enumerate(prompts):
            if found := self.problem(prompt):
                self.passed, self._root = passed, root
                self._ids -= {hash(earlier.custom_id) for earlier in prompts[:place] if earlier.custom_id is not None}
                return found
        return None


def checked(prompts: Iterable[NewPrompt]) -> Iterator[NewPrompt]:
    """The same prompts, each looked at as it passes. Raises `InvalidInput` for the first that cannot be stored."""
    check = PromptCheck()
    for prompt in prompts:
        if check.passed == MAX_PROMPTS:
            raise InvalidInput(f"There are too many prompts; a run takes {MAX_PROMPTS}.", "prompts")
        if found := check.problem(prompt):
            problem, part = found
            field = f"prompts.{check.passed}"
            raise InvalidInput(f"Prompt {check.passed + 1} {problem}", f"{field}.{part}" if part else field)
        yield prompt


def set_digest(before: str, prompt: NewPrompt) -> str:
    """Digest of a set of prompts that ends with ``prompt``; ``before`` is that of the prompts before, at first "".

    Sets are the same where the same conversations stand in the same order, whatever else is known of them.
    """
    said = [[message.role, message.content] for message in prompt.messages]
    own = json.dumps([before, said, prompt.follows], ensure_ascii=False)
    return hashlib.sha256(own.encode()).hexdigest()


def problem_of(prompt: NewPrompt) -> str | None:
    """What keeps a prompt from being stored, as the end of a sentence."""
    characters = len(prompt.text)
    has_nul = "\x00" in prompt.text
    if prompt.system or prompt.history:
        for text in (prompt.system or "", *(message.content for message in prompt.history)):
            characters += len(text)
            has_nul = has_nul or "\x00" in text
    if characters > MAX_PROMPT_CHARACTERS:
        return f"has {characters} characters; the limit is {MAX_PROMPT_CHARACTERS}."
    return "contains a NUL character; remove it." if has_nul else None
