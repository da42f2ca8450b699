"""Renders conversations for engines that have no tokenizer."""

from tasks.conversation import Conversation
from tasks.ledger.records import Rendered
from tasks.registry import ModelEntry
from worker.backends.thinking import ThinkingSplitter


class TextRenderer:
    """Implements `worker.backends.local.Renderer`: messages joined by line ends, a token a character."""

    def render(self, conversation: Conversation, entry: ModelEntry) -> Rendered:
        return Rendered("\n".join(message.content for message in conversation), ())

    def answers_apart(self, entry: ModelEntry) -> bool:
        return False

    def splitter(self, rendered: Rendered) -> ThinkingSplitter | None:
        return None

    def count(self, text: str) -> int:
        return len(text)
