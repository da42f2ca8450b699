"""Files of prompts: lines or blocks, in constant memory, and what is wrong is said with its line."""

import io
import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import MAX_PROMPT_CHARACTERS, MAX_PROMPTS, NewPrompt, checked
from tasks.errors import InvalidInput
from tasks.files.read.text import read_text

LONG = "字" * MAX_PROMPT_CHARACTERS


def read(content: bytes | str) -> list[str]:
    raw = content.encode() if isinstance(content, str) else content
    return [prompt.text for prompt in read_text(io.BytesIO(raw), "p.txt")]


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("甲\n乙\n", ["甲", "乙"]),
        ("\ufeff甲\r\n\r\n  乙 ", ["甲", "乙"]),
        ("a---b\n----\n", ["a---b", "----"]),
        ("one\u2028line\x0c\n", ["one\u2028line"]),
        ("甲\n乙\n---\n丙", ["甲\n乙", "丙"]),
        ("---\n甲\r\n\r\n乙\n---\n\n---\n丙\n---\n", ["甲\n\n乙", "丙"]),
        (LONG + "\n" + LONG, [LONG, LONG]),
        (LONG + "\n---\n" + LONG, [LONG, LONG]),
        ("𠀀" * MAX_PROMPT_CHARACTERS, ["𠀀" * MAX_PROMPT_CHARACTERS]),
    ],
)
def test_a_file_is_lines_or_blocks(content: str, prompts: list[str]) -> None:
    assert read(content) == prompts


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no prompt"),
        (b"\n \n---\n", "holds no prompt"),
        (b"a\nb\x00c\n", "line 2: the prompt contains a NUL"),
        (b"a\n---\nb\nc\x00\n", "line 3: the prompt contains a NUL"),
        ("好\n".encode() * 3 + "好".encode("gbk"), "line 4: not UTF-8 text"),
        ("好".encode("utf-16"), "line 1: not UTF-8 text"),
        (f"a\n{LONG}x\n", f"line 2: the prompt has {MAX_PROMPT_CHARACTERS + 1} characters"),
        (b"a\n" + b"x" * 10_000_000, f"line 2: the line is longer than {MAX_PROMPT_CHARACTERS}"),
        ("a\n---\n" + "x\n" * MAX_PROMPT_CHARACTERS, "line 3: the prompt has"),
        ("a\n---\n" + "xx\n" * MAX_PROMPT_CHARACTERS, "line 3: the prompt that begins here is longer"),
        ("xx\n" * MAX_PROMPT_CHARACTERS + "---\n", f"line {MAX_PROMPT_CHARACTERS + 1}: a line of --- ends"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(content: bytes | str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as raised:
        read(content)
    assert raised.value.message.startswith("p.txt") and raised.value.field == "file"


text_lines = st.lists(st.text(st.characters(exclude_characters="\n\r\x00", codec="utf-8"), max_size=20), min_size=1)


@given(text_lines)
def test_every_line_that_says_something_is_a_prompt(lines: list[str]) -> None:
    said = [line.strip() for line in lines if line.strip() and line.strip() != "---"]
    if said:
        assert read("\n".join(line for line in lines if line.strip() != "---").removeprefix("\ufeff")) == [
            line for line in ([said[0].removeprefix("\ufeff").strip(), *said[1:]]) if line
        ]


class Endless(io.RawIOBase):
    """A file of a prompt a line that is made while it is read."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        line = f"写一首关于春天的诗，第{next(self.numbers)}首\n".encode()
        buffer[: len(line)] = line
        return len(line)


def test_a_million_prompts_take_the_memory_of_one_and_one_more_is_too_many() -> None:
    tracemalloc.start()
    try:
        stream = checked(read_text(io.BufferedReader(Endless()), "p.txt"))
        assert sum(1 for _ in itertools.islice(stream, 50_000)) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    assert sum(1 for _ in checked(itertools.repeat(NewPrompt("x"), MAX_PROMPTS))) == MAX_PROMPTS
    with pytest.raises(InvalidInput, match="too many"):
        for _ in checked(itertools.repeat(NewPrompt("x"), MAX_PROMPTS + 1)):
            pass
