"""Parameters of OpenAI's interface that nothing here answers to: refused where they ask for something, or ignored."""

from collections.abc import Mapping
from typing import Any

from tasks.errors import InvalidInput

# Clients send these with every request; they change no answer.
IGNORED = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}

# What is refused, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}


class Unsupported(InvalidInput):
    """A parameter of OpenAI's interface that asks for what is not done here."""

    code = "unsupported_parameter"


def effective(given: Any) -> Any:
    """A body without what asks for nothing: null, ignored parameters, refused ones with a harmless value.

    Raises `Unsupported` for a parameter that would change the answer if it were heeded.
    """
    if not isinstance(given, Mapping):
        return given
    kept = {name: value for name, value in given.items() if value is not None and name not in IGNORED}
    for name in REFUSED.keys() & kept.keys():
        if kept.pop(name) not in REFUSED[name]:
            raise Unsupported(f"{name} is not supported here; leave it out.", name)
    return kept
