"""Conversations as prompts: by the tokenizer's chat template, or as plain text for models that have none."""

import threading
from typing import Any

from tasks.conversation import Conversation, Message, Role
from tasks.errors import InvalidInput, ModelError
from tasks.ledger.records import Rendered
from tasks.registry import ModelEntry
from tasks.registry.entry import Template
from worker.backends.thinking import KNOWN_MARKS, Marks, ThinkingSplitter

TURNS_JOINED = "\n\n"
NO_SYSTEM = (
    "This conversation has a system message, and the model has no chat template that says where it goes. Put it into "
    "the prompt, or give the model's entry a template."
)


class ChatRenderer:
    """Implements `worker.backends.local.Renderer` with a tokenizer of transformers.

    Text that a chat template made is tokenized as it is: the template has written the beginning-of-text token itself.
    """

    def __init__(self, tokenizer: Any, entry: ModelEntry, *, add_special_tokens: bool = True):
        """Raises `ModelError` where ``entry`` asks for what the tokenizer does not have."""
        self._tokenizer = tokenizer
        self._add_special_tokens = add_special_tokens
        self._lock = threading.Lock()  # a tokenizer of transformers is not made for several threads
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        if entry.template == Template.CHAT and not self.has_template:
            raise ModelError(f"{entry.name}: template is 'chat', but the tokenizer has no chat template; remove it.")
        if entry.system is not None and self.way(entry) != Template.CHAT:
            raise ModelError(f"{entry.name}: a system message needs a chat template; remove system from the entry.")
        self.marks = find_marks(tokenizer) if self.has_template else None

    def way(self, entry: ModelEntry) -> str:
        """The entry's template, with the tokenizer's own choice where it has none."""
        return entry.template or (Template.CHAT if self.has_template else Template.PLAIN)

    def render(self, conversation: Conversation, entry: ModelEntry) -> Rendered:
        """Raises `InvalidInput` for a conversation that the template cannot take."""
        way = self.way(entry)
        if way == Template.CHAT:
            text = self._by_template(conversation, entry)
        else:
            if entry.system is not None:  # of a run that is older than the entry that this worker runs
                raise InvalidInput(NO_SYSTEM)
            text = _plain(conversation)
            text = text if way == Template.PLAIN else way.replace("{prompt}", text)
        try:
            with self._lock:
                special = self._add_special_tokens and way != Template.CHAT
                tokens = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        except Exception as error:  # a tokenizer may raise anything
            raise InvalidInput(f"The prompt cannot be tokenized: {type(error).__name__}: {error}") from error
        return Rendered(text, tuple(tokens))

    def answers_apart(self, entry: ModelEntry) -> bool:
        return self.way(entry) == Template.CHAT

    def splitter(self, rendered: Rendered) -> ThinkingSplitter | None:
        if self.marks is None:
            return None
        return ThinkingSplitter(self.marks, (rendered.text or "").rstrip().endswith(self.marks.opening))

    def count(self, text: str) -> int:
        with self._lock:
            return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _by_template(self, conversation: Conversation, entry: ModelEntry) -> str:
        if not self.has_template:
            raise InvalidInput("The run asks for a chat template, and the tokenizer of this model has none.")
        messages = [message.to_dict() for message in conversation]
        if entry.system is not None and conversation[0].role is not Role.SYSTEM:
            messages.insert(0, Message(Role.SYSTEM, entry.system).to_dict())
        options: dict[str, Any] = {}
        if entry.thinking is not None:
            options = {"enable_thinking": entry.thinking, "thinking": entry.thinking}
        try:
            with self._lock:
                return str(
                    self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
                )
        except Exception as error:  # a template may raise anything
            raise InvalidInput(f"The model's chat template does not take this conversation: {error}") from error


def _plain(conversation: Conversation) -> str:
    if any(message.role is Role.SYSTEM for message in conversation):
        raise InvalidInput(NO_SYSTEM)
    return TURNS_JOINED.join(message.content for message in conversation)


def find_marks(tokenizer: Any) -> Marks | None:
    """The marks of thinking that the chat template writes or the vocabulary has; None where there are none."""
    template = str(tokenizer.chat_template)
    vocabulary = tokenizer.get_added_vocab()
    known = (
        one for one in KNOWN_MARKS for mark in (one.opening, one.closing) if mark in template or mark in vocabulary
    )
    return next(known, None)
