"""Files of JSON: the shapes that people have, and what is wrong with a record is said with its line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import Message, NewPrompt, Role, checked
from tasks.errors import InvalidInput
from tasks.files.read import Reading, preview, read

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=30).filter(
    str.strip
)


def load(text: str | bytes, name: str = "f", reading: Reading | None = None) -> list[NewPrompt]:
    return list(checked(read(io.BytesIO(text.encode() if isinstance(text, str) else text), name, reading)))


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
    more = {"checks": [{"type": "contains", "value": "见"}], "custom_id": "1", "sampling": {"seed": 3}}
    first, second, third = load(
        "\ufeff" + lines(full | more, {"prompt": "then?", "follows": 0}) + "\n" + lines({"prompt": "x"})
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
        sampling={"seed": 3},
    )
    assert (second.text, second.follows, third.text, third.follows) == ("then?", 0, "x", None)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_any_text_comes_through(texts: list[str]) -> None:
    assert [prompt.text for prompt in load(lines(*({"prompt": text} for text in texts)))] == texts
    document = json.dumps({"name": "set", "items": [{"question": text} for text in texts]}, indent=1)
    assert [prompt.text for prompt in load(document)] == texts


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        (
            {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": {
                "model": "m", "messages": CHAT[:1], "max_tokens": 9, "temperature": 0, "stop": "\n"}},
            NewPrompt("hi", custom_id="r", sampling={"max_new_tokens": 9, "temperature": 0.0, "stop": ("\n",)}),
        ),
        ({"custom_id": "r", "body": {"prompt": "hi"}}, NewPrompt("hi", custom_id="r")),
        ({"messages": CHAT}, NewPrompt("hi", reference="yes")),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}], "id": 7},
            NewPrompt("hi", reference="yes", custom_id="7"),
        ),
        ({"instruction": "Add", "input": "1 2", "output": "3"}, NewPrompt("Add\n\n1 2", variables={"output": "3"})),
        ({"query": "q", "response": "r", "system": "s"}, NewPrompt("q", reference="r", system="s")),
        ({"question": "q", "answer": 4}, NewPrompt("q", reference="4")),
        (
            {"uid": "u", "category": "hard", "cluster": "AI", "prompt": "p"},
            NewPrompt("p", custom_id="u", category="hard", tags=("AI",)),
        ),
        (
            {"input": "q", "target": "A", "id": 1, "choices": ["x", "y"], "metadata": {"level": 2}},
            NewPrompt("q\n\nA) x\nB) y", reference="A", custom_id="1", variables={"level": "2"}),
        ),
        ({"input": CHAT[:1], "target": ["a", "b"]}, NewPrompt("hi", reference="a")),
        ({"question_id": 3, "question": "问", "subcategory": "音乐", "evidences": [{}]},
         NewPrompt("问", custom_id="3", tags=("音乐",))),
    ],
)  # fmt: skip
def test_a_record_of_another_program_is_a_prompt(record: dict[str, Any], prompt: NewPrompt) -> None:
    assert load(lines(record)) == [prompt]


def test_turns_follow_one_another_with_their_references() -> None:
    record = {"question_id": 81, "category": "math", "turns": ["a", "b"], "reference": ["1", "2"]}
    first, second, third = load(lines(record, {"question_id": 82, "turns": ["c"]}))
    assert first == NewPrompt("a", category="math", reference="1", custom_id="81")
    assert second == NewPrompt("b", follows=0, category="math", reference="2", custom_id="81/2")
    assert third == NewPrompt("c", custom_id="82")


def test_what_a_batch_line_says_of_its_model_is_noted() -> None:
    found = preview(io.BytesIO(lines({"custom_id": "1", "body": {"model": "m", "prompt": "p", "n": 2}}).encode()), "b")
    assert len(found.notes) == 2 and "model" in found.notes[0] and "setting n" in found.notes[1]


def test_prompts_follow_by_the_number_they_have_without_those_left_out() -> None:
    text = lines({"prompt": ""}, {"prompt": "a"}, {"prompt": "b", "follows": 1}, {"prompt": "c", "follows": 0})
    first, second = load(text, reading=Reading(leave_out=True))
    assert (first.text, second.text, second.follows) == ("a", "b", 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines({"prompt": "a"}) + "b\n", "line 2: The line is no JSON"),
        (lines({"prompt": "a"}) + "[1]\n", "line 2: The line is no JSON object"),
        (lines({"prompt": "a", "promt": "b", "checks": []}), "Did you mean 'prompt'"),
        (lines({"prompt": "a", "messages": [], "follows": 1}), "line 1"),
        (lines({"messages": [{"role": "robot", "content": "x"}]}), "system, user or assistant"),
        (lines({"messages": [{"role": "assistant", "content": "x"}]}), "must end with a message of the user"),
        (lines({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "more than text"),
        (lines({"prompt": "{{a}}", "variables": {"b": "c"}}), "no 'a'"),
        (b'{"prompt": "\xff"}\n', "UTF-8"),
        (b'{"prompt": "' + b"x" * 2**20 + b'"}\n', "line 1: The line is longer than"),
        ('{"prompt": "a", "checks": ' + "[" * 100_000 + "\n", "line 1"),
        (lines({"prompt": "a", "custom_id": "1"}, {"prompt": "b", "custom_id": "1"}), "line 2: The prompt has the cus"),
        (lines({"prompt": "a"}, {"prompt": "b", "follows": 5}), "follows 5"),
        ('{"prompt": "a\\u0000"}\n', "NUL"),
        ('{"prompt": "\\ud800"}\n', "line 1: The line is no JSON (no low surrogate"),
        ('{"prompt": "a", "checks": [{"type": "contains", "value": "\\ud800"}]}\n', "surrogate"),
        (lines({"prompt": 3}), "line 1: prompt is no text"),
        (lines({"prompt": None}), "line 1: prompt is no text"),
        (lines({"prompt": "a", "category": ["b"]}), "line 1: category is no text"),
        (lines({"prompt": "a", "tags": ["b" * 101]}), "line 1: It has over 100 tags"),
        (lines({"turns": ["a", ""]}), "line 1: The prompt is empty"),
        (lines({"custom_id": "1", "url": "/v1/embeddings", "body": {"prompt": "a"}}), "url is"),
        (lines({"custom_id": "1", "body": {"prompt": "a", "max_tokens": 0}}), "body.max_tokens must be"),
        (lines({"a": "b"}), "line 1: No column is known to hold prompts; there are a"),
        ("[" * 10_000, "f"),
        ('[{"a": ' + "[" * 10_000, "line 1: The file is no JSON (it is nested too deeply)"),
        ('[\n{"prompt": "a"},\n{"prompt": 3}]', "line 3: prompt is no text"),
        ('[\n{"prompt": "a"},\n{"prompt": "b"', "line 3: The file is no JSON"),
        ('[{"prompt": "\\ud800"}]', "line 1: The record is no JSON (no low surrogate"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load(text, "f.json" if isinstance(text, str) and text.startswith("[") else "f")
    assert words in raised.value.message


class Pipe(io.BytesIO):
    """Bytes that come over the network: they can be read once."""

    def seekable(self) -> bool:
        return False


def test_a_stream_that_cannot_be_sought_and_a_file_are_read_alike(tmp_path: Path) -> None:
    content = lines({"prompt": "a"}, {"prompt": "b", "follows": 0}).encode()
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        from_file = list(read(file, "f"))
    assert from_file == list(read(Pipe(content), "f")) and len(from_file) == 2


def test_a_file_that_is_called_jsonl_is_never_taken_for_text() -> None:
    with pytest.raises(InvalidInput, match="line 1: The line is no JSON"):
        load(b"not json\n", "Conversations.JSONL")


def test_parquet_is_read_where_its_library_is_there() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist([{"question": "问", "answer": "答"}, {"question": "q"}])
    file = io.BytesIO()
    parquet.write_table(table, file)
    assert load(file.getvalue(), "d.parquet") == [NewPrompt("问", reference="答"), NewPrompt("q")]
    with pytest.raises(InvalidInput, match="damaged Parquet"):
        load(b"PAR1" + b"x" * 50, "d.parquet")
