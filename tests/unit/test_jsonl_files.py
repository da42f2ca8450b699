"""Files of JSON objects: conversations in, what is wrong is said with its line, text files stay text files."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import Message, NewPrompt, Role, checked
from tasks.errors import InvalidInput
from tasks.files.read import read

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=30).filter(
    str.strip
)


def load(text: str | bytes) -> list[NewPrompt]:
    return list(checked(read(io.BytesIO(text.encode() if isinstance(text, str) else text), "f")))


def lines(*objects: Any) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def test_conversations_come_with_all_that_belongs_to_them() -> None:
    messages = [
        {"role": "system", "content": "简短"},
        {"role": "user", "content": "{{who}}?"},
        {"role": "assistant", "content": "您好"},
        {"role": "user", "content": "再见"},
    ]
    full = {"messages": messages, "variables": {"who": "你"}, "category": "c", "reference": "r", "tags": ["t"]}
    checks = {"checks": [{"type": "contains", "value": "见"}], "custom_id": "1"}
    first, second, third = load(
        "\ufeff" + lines(full | checks, {"prompt": "then?", "follows": 0}) + "\n" + lines({"prompt": "x"})
    )
    assert first == NewPrompt(
        "再见",
        system="简短",
        history=(Message(Role.USER, "你?"), Message(Role.ASSISTANT, "您好")),
        category="c",
        reference="r",
        checks=({"type": "contains", "value": "见"},),
        tags=("t",),
        variables={"who": "你"},
        custom_id="1",
    )
    assert (second.text, second.follows, third.text, third.follows) == ("then?", 0, "x", None)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_any_text_comes_through(texts: list[str]) -> None:
    assert [prompt.text for prompt in load(lines(*({"prompt": text} for text in texts)))] == texts


@pytest.mark.parametrize("text", ["{{name}} writes\nsecond", "{not json}", "[1]\n2", "{\n---\nx"])
def test_a_text_file_that_has_braces_stays_one(text: str) -> None:
    assert load(text)[0].text == text.split("\n")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines({"prompt": "a"}) + "b\n", "line 2: The line is no JSON"),
        (lines({"prompt": "a"}) + "[1]\n", "line 2: The line is no JSON object"),
        (lines({"prompt": "a", "promt": "b"}), "did you mean 'prompt'"),
        (lines({"prompt": "a", "messages": []}), "line 1"),
        (lines({"messages": [{"role": "robot", "content": "x"}]}), "system, user or assistant"),
        (lines({"messages": [{"role": "assistant", "content": "x"}]}), "must end with a message of the user"),
        (lines({"prompt": "{{a}}", "variables": {"b": "c"}}), "no 'a'"),
        (b'{"prompt": "\xff"}\n', "UTF-8"),
        (b'{"prompt": "' + b"x" * 2**20 + b'"}\n', "longer than"),
        ('{"prompt": "a", "checks": ' + "[" * 100_000 + "\n", "line 1"),
        (lines({"prompt": "a", "custom_id": "1"}, {"prompt": "b", "custom_id": "1"}), "ids must differ"),
        (lines({"prompt": "a"}, {"prompt": "b", "follows": 5}), "follows 5"),
        ('{"prompt": "a\\u0000"}\n', "NUL"),
        ('{"prompt": "\\ud800"}\n', "surrogate"),
        ('{"prompt": "a", "checks": [{"type": "contains", "value": "\\ud800"}]}\n', "surrogate"),
        ('{"prompt": "a", "checks": [{"type": "x", "\\ud800": 1}]}\n', "surrogate"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load(text)
    assert words in raised.value.message


def test_a_stream_that_cannot_be_sought_and_a_file_are_read_alike(tmp_path: Path) -> None:
    content = lines({"prompt": "a"}, {"prompt": "b", "follows": 0}).encode()
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        from_file = list(read(file, "f"))
    assert from_file == list(read(io.BytesIO(content), "f")) and len(from_file) == 2


@pytest.mark.parametrize("content", [b"not json\n", b'[{"prompt": "x"}]\n'])
def test_a_file_that_is_called_jsonl_is_never_taken_for_text(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="line 1: The line is no JSON"):
        list(read(io.BytesIO(content), "Conversations.JSONL"))
