"""What a conversation may be: messages in order, turns that follow, variables put in."""

import time
import tracemalloc

import pytest

from tasks.conversation import MAX_TURNS, Message, NewPrompt, Role, checked, filled, split
from tasks.errors import InvalidInput


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        ([NewPrompt("a"), NewPrompt("b"), NewPrompt("c", follows=0)], "prompts.2.follows"),
        ([NewPrompt("a", follows=0)], "prompts.0.follows"),
        ([NewPrompt("a"), NewPrompt("b", follows=0, system="s")], "prompts.1"),
        ([NewPrompt("a", custom_id="x"), NewPrompt("b", custom_id="x")], "prompts.1.custom_id"),
        ([NewPrompt("a"), *(NewPrompt("t", follows=i) for i in range(MAX_TURNS))], f"prompts.{MAX_TURNS}.follows"),
        ([NewPrompt("a", history=(Message(Role.USER, "x" * 32_001),))], "prompts.0"),
        ([NewPrompt("a", system="\x00")], "prompts.0"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused_by_its_place(prompts: list[NewPrompt], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        list(checked(prompts))
    assert raised.value.field == field


def test_variables_cannot_make_a_prompt_too_large_for_the_memory() -> None:
    history = (Message(Role.USER, "{{x}}" * 6400),) * 100
    prompt = NewPrompt("{{x}}", history=history, variables={"x": "y" * 32_000})
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="limit is 32000"):
        filled(prompt, "prompts.0")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10e6


def test_text_that_only_begins_like_a_variable_takes_no_time() -> None:
    started = time.process_time()
    text = "{{x" + " " * 32_000
    assert filled(NewPrompt(text, variables={"x": "y"}), "prompts.0").text == text
    assert filled(NewPrompt("{{ }} {{x }}{x}", variables={"x": "y"}), "prompts.0").text == "{{ }} y{x}"
    assert time.process_time() - started < 1.0


def test_messages_are_parted_and_variables_put_in() -> None:
    said = [
        Message(Role.SYSTEM, "{{s}}"),
        Message(Role.USER, "u"),
        Message(Role.ASSISTANT, "a"),
        Message(Role.USER, "{{ q }}"),
    ]
    system, history, text = split(said)
    prompt = NewPrompt(text, system=system, history=history, variables={"q": "why?", "s": "short"})
    assert filled(prompt, "prompts.0").messages == (
        Message(Role.SYSTEM, "short"),
        *said[1:3],
        Message(Role.USER, "why?"),
    )
    with pytest.raises(InvalidInput, match="'q'"):
        filled(NewPrompt("{{q}}", variables={"s": ""}), "prompts.0")
    assert filled(NewPrompt("{{q}}"), "prompts.0").text == "{{q}}"
    for wrong in ([], said[:3], [said[3], said[0], said[3]]):
        with pytest.raises(InvalidInput):
            split(wrong)
