"""Conversations as prompts: the tokenizer's template, plain text, and what neither can take."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tasks.conversation import Message, NewPrompt, Role
from tasks.errors import InvalidInput, ModelError
from tasks.registry import LocalModel
from worker.backends.chat import ChatRenderer

CHATML = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
TALK = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "yes?"), Message(Role.USER, "bye"))


def make_tokenizer(template: str | None = CHATML) -> Any:
    """A tokenizer of bytes that begins every text with <s>, as Llama's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: number for number, token in enumerate(["<s>", "</s>", "<|im_start|>", "<|im_end|>", *alphabet])
    }
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.chat_template = template
    return made


def entry(**values: Any) -> LocalModel:
    return LocalModel(name="m", source="m", **values)


def test_the_template_is_used_and_begins_the_text_once() -> None:
    renderer = ChatRenderer(make_tokenizer(), entry())
    rendered = renderer.render(TALK, entry())
    assert rendered.text == (
        "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes?<|im_end|>\n"
        "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
    )
    assert rendered.tokens.count(0) == 1 and rendered.tokens.count(2) == 4
    assert renderer.splitter(rendered) is not None  # its template knows <think>


def test_a_base_model_gets_plain_text_with_turns_joined_by_blank_lines() -> None:
    tokenizer = make_tokenizer(None)
    renderer = ChatRenderer(tokenizer, entry())
    assert renderer.render(TALK, entry()).text == "hi\n\nyes?\n\nbye"
    assert renderer.render(TALK, entry()).tokens[0] == 0
    assert renderer.splitter(renderer.render(TALK, entry())) is None
    assert 0 not in ChatRenderer(tokenizer, entry(), add_special_tokens=False).render(TALK, entry()).tokens
    assert renderer.render(TALK[:1], entry(template="Q: {prompt}\n")).text == "Q: hi\n"


def test_a_run_may_ask_for_plain_text_of_a_chat_model() -> None:
    assert ChatRenderer(make_tokenizer(), entry()).render(TALK[:1], entry(template="plain")).text == "hi"


def test_a_system_message_comes_from_the_conversation_else_from_the_entry() -> None:
    renderer = ChatRenderer(make_tokenizer(), entry())
    of_entry = renderer.render(TALK, entry(system="be brief")).text
    own = renderer.render(NewPrompt("hi", system="be long").messages, entry(system="be brief")).text
    assert of_entry and "system\nbe brief<" in of_entry
    assert own and "be long" in own and "be brief" not in own


def test_thinking_is_switched_where_the_template_knows_it() -> None:
    renderer = ChatRenderer(make_tokenizer(), entry())
    on, off = (renderer.render(TALK[:1], entry(thinking=wanted)) for wanted in (True, False))
    assert on.text and on.text.endswith("<think>\n") and off.text and not off.text.endswith("<think>\n")
    splitter = renderer.splitter(on)
    assert splitter and splitter.push("hm</think>\nyes") == ("hm", "yes")


def test_what_a_template_cannot_take_is_that_prompts_error() -> None:
    renderer = ChatRenderer(make_tokenizer(), entry())
    with pytest.raises(InvalidInput, match="late"):
        renderer.render((TALK[0], Message(Role.SYSTEM, "x"), TALK[2]), entry())
    base = ChatRenderer(make_tokenizer(None), entry())
    with pytest.raises(InvalidInput, match="system message"):
        base.render(NewPrompt("hi", system="s").messages, entry())
    with pytest.raises(InvalidInput, match="none"):
        base.render(TALK, entry(template="chat"))


@pytest.mark.parametrize("wrong", [{"template": "chat"}, {"system": "be brief"}])
def test_an_entry_that_asks_for_a_template_that_is_not_there_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="template"):
        ChatRenderer(make_tokenizer(None), entry(**wrong))


def test_whatever_a_template_raises_is_told_of_the_prompt() -> None:
    renderer = ChatRenderer(make_tokenizer("{{ 1 // (messages | length - 3) }}"), entry())
    assert renderer.render(TALK[:1], entry()).text == "-1"
    with pytest.raises(InvalidInput, match="template does not take"):
        renderer.render(TALK, entry())


def test_a_system_message_of_the_entry_that_a_run_was_made_with_is_never_dropped() -> None:
    renderer = ChatRenderer(make_tokenizer(None), entry())
    with pytest.raises(InvalidInput, match="system message"):
        renderer.render(TALK, entry(system="be brief"))
