"""A generation as the body of a request: which settings a server is asked for, and which it turned out to refuse."""

import re
from collections.abc import Mapping
from typing import Any

from tasks.conversation import Message, Role
from tasks.errors import InvalidInput
from tasks.registry.entry import Api, Template
from worker.backends.protocol import Generation

MAX_STOPS = 4  # that OpenAI's interface takes; all of them are looked for here as well
SEEDS = 2**31  # some servers take no larger seed
REPEAT_TOKENS = 32_768  # llama.cpp looks back at so many, of which it has no word for all
TURNS_JOINED = "\n\n"
# Servers whose own defaults are not "off", by what they call themselves: what is off must be said to them.
OFF: Mapping[str, Mapping[str, float]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
OPTIONAL = (
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "repeat_penalty",
    "repeat_last_n",
    "seed",
    "stop",
    "stream_options",
    "chat_template_kwargs",
)
UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported|not supported|not permitted|not allowed|forbidden|extra|"
    r"additional propert|does not support|invalid param|未知|不支持",
    re.IGNORECASE,
)
FIRST_LIMIT = "max_tokens"
NEW_LIMIT = re.compile(r"use\W+max_completion_tokens", re.IGNORECASE)
NO_SYSTEM = (
    "This conversation has a system message, and api = 'completions' sends plain text that has no place for it. Put it "
    "into the prompt, or use api = 'chat'."
)


class Parameters:
    """What is sent to a server that calls itself ``dialect``, under ``model``; ``refused`` is no longer sent."""

    def __init__(self, model: str, api: Api, dialect: str):
        self.model, self.api, self.dialect = model, api, dialect
        self.refused: set[str] = set()
        self._limit = FIRST_LIMIT

    @property
    def path(self) -> str:
        return "/chat/completions" if self.api is Api.CHAT else "/completions"

    def body(self, generation: Generation) -> dict[str, Any]:
        """Raises `InvalidInput` for a conversation or a setting that the interface has no way to say."""
        asked = self.asked(generation)
        asked[self._limit] = asked.pop(FIRST_LIMIT)
        return {name: value for name, value in asked.items() if name not in self.refused}

    def asked(self, generation: Generation) -> dict[str, Any]:
        """The body for a server that knows every setting, the same whatever was refused so far. Raises the same."""
        if generation.sampling.no_repeat_ngram:
            raise InvalidInput("no_repeat_ngram cannot be asked of a server; set it to 0 for this model.")
        return self._prompt(generation) | self._settings(generation)

    def refuse(self, body: Mapping[str, Any], said: str) -> list[str]:
        """Learn from an error which of the settings sent in ``body`` the server does not know; returns their names."""
        if self._limit in body and self._limit == FIRST_LIMIT and NEW_LIMIT.search(said):
            self._limit = "max_completion_tokens"
            return [FIRST_LIMIT]
        if not UNKNOWN.search(said):
            return []
        names = [name for name in OPTIONAL if name in body and re.search(rf"\b{name}\b", said)]
        self.refused.update(names)
        return names

    def _prompt(self, generation: Generation) -> dict[str, Any]:
        said, entry = generation.conversation, generation.entry
        if self.api is Api.CHAT:
            if entry.system is not None and said[0].role is not Role.SYSTEM:
                said = (Message(Role.SYSTEM, entry.system), *said)
            asked: dict[str, Any] = {"messages": [message.to_dict() for message in said]}
            if entry.thinking is not None:
                # Templates call the switch by one of these names.
                asked["chat_template_kwargs"] = {"enable_thinking": entry.thinking, "thinking": entry.thinking}
            return asked
        if any(message.role is Role.SYSTEM for message in said):
            raise InvalidInput(NO_SYSTEM)
        text = TURNS_JOINED.join(message.content for message in said)
        way = entry.template or Template.PLAIN
        return {"prompt": text if way == Template.PLAIN else way.replace("{prompt}", text)}

    def _settings(self, generation: Generation) -> dict[str, Any]:
        sampling, off = generation.sampling, OFF.get(self.dialect, {})
        asked: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            FIRST_LIMIT: sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed % SEEDS,
            **off,
        }
        if sampling.temperature == 0.0:
            # The likeliest token is the same whatever else is cut off; llama.cpp sorts its vocabulary for each cut.
            asked |= {"top_k": 1} if "top_k" in off else {}
        elif sampling.top_k:
            asked["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1.0:
            if "repeat_penalty" in off:
                asked |= {"repeat_penalty": sampling.repetition_penalty, "repeat_last_n": REPEAT_TOKENS}
            else:
                asked["repetition_penalty"] = sampling.repetition_penalty
        if sampling.stop:
            asked["stop"] = list(sampling.stop[:MAX_STOPS])
        return asked
