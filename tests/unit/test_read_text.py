"""Files of lines and blocks, their encodings, and what is no text at all."""

import gzip
import io
import itertools
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import MAX_PROMPT_CHARACTERS, MAX_PROMPTS, NewPrompt, checked
from tasks.errors import InvalidInput
from tasks.files.read import Reading, preview, read
from tasks.files.read.reading import Encoding, FileFormat

LONG = "字" * MAX_PROMPT_CHARACTERS


def texts(content: bytes | str, reading: Reading | None = None) -> list[str]:
    raw = content.encode() if isinstance(content, str) else content
    return [prompt.text for prompt in checked(read(io.BytesIO(raw), "p.txt", reading))]


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
        ("Write, please\nDo this, and that\n", ["Write, please", "Do this, and that"]),
        ("{{name}} writes\nsecond", ["{{name}} writes", "second"]),
        ("{not json}", ["{not json}"]),
        ("[1]\n2", ["[1]", "2"]),
    ],
)
def test_a_file_is_lines_or_blocks(content: str, prompts: list[str]) -> None:
    assert texts(content) == prompts


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "white space"),
        (b"\n---\n", "holds no prompt"),
        (b"a\nb\x00c\n", "line 2: It has a NUL"),
        (b"a\n---\nb\nc\x00\n", "line 3: It has a NUL"),
        ("好\n".encode() * 3 + "好".encode("gbk"), "line 4"),
        ("问题一二三四五\n".encode() * 3 + "好".encode("gbk"), "line 4: not UTF-8 text"),
        ("问题".encode() + b"\xe5\xa5", "line 1: ends in the middle of a character"),
        ("hello\nworld".encode("utf-16-le"), "choose utf-16"),
        (f"a\n{LONG}x\n", f"line 2: The prompt has {MAX_PROMPT_CHARACTERS + 1} characters"),
        (b"a\n" + b"x" * 10_000_000, "line 2: the line is longer than"),
        ("a\n---\n" + "xx\n" * MAX_PROMPT_CHARACTERS, "line 3: The prompt that begins here is longer"),
        ("xx\n" * MAX_PROMPT_CHARACTERS + "---\n", f"line {MAX_PROMPT_CHARACTERS + 1}: A line of --- ends"),
        (gzip.compress(b"a"), "gzip"),
        (b"%PDF-1.7\n", "PDF"),
        ("x\n" * 10 + "\x00" * 3, "line 11: It has a NUL"),
        (b"\x89PNG\r\n\x1a\n", "image"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(content: bytes | str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as raised:
        texts(content)
    assert raised.value.message.startswith("p.txt") and raised.value.field == "file"


def test_a_zip_that_is_no_workbook_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.json", "{}")
    with pytest.raises(InvalidInput, match="ZIP"):
        texts(file.getvalue())


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_the_encoding_is_guessed_and_may_be_said(codec: str) -> None:
    content = "春天的诗\r\n第二首，请写\r\n".encode(codec)
    found = preview(io.BytesIO(content), "p.txt")
    assert [prompt.text for prompt in found.first] == ["春天的诗", "第二首，请写"]
    assert set(found.guessed) == {"encoding", "format"} and found.lengths == {4: 1, 6: 1}
    assert texts(content, Reading(encoding=found.reading.encoding)) == ["春天的诗", "第二首，请写"]


def test_utf_16_without_a_mark_can_be_said() -> None:
    assert texts("hello\nworld".encode("utf-16-be"), Reading(encoding=Encoding.UTF_16)) == ["hello", "world"]


def test_what_looks_like_a_table_is_lines_only_where_a_person_says_so() -> None:
    content = "prompt,category\nWrite,a\n"
    assert texts(content) == ["Write"]
    assert texts(content, Reading(format=FileFormat.LINES)) == ["prompt,category", "Write,a"]


text_lines = st.lists(
    st.text(st.characters(exclude_characters='\n\r\x00"\t,;[{', codec="utf-8"), max_size=20), min_size=1
)


@given(text_lines)
def test_every_line_that_says_something_is_a_prompt(lines: list[str]) -> None:
    lines = [line for line in lines if line.strip() != "---" and "\ufeff" not in line]
    said = [line.strip() for line in lines if line.strip()]
    if said and "\x00" not in "".join(said):
        reading = Reading(format=FileFormat.LINES, encoding=Encoding.UTF_8)
        assert texts("\n".join(lines), reading) == said


def test_a_million_prompts_take_the_memory_of_one_and_one_more_is_too_many() -> None:
    content = "".join(f"写一首关于春天的诗，第{number}首\n" for number in range(50_000)).encode()
    tracemalloc.start()
    try:
        stream = checked(read(io.BytesIO(content), "p.txt"))
        assert sum(1 for _ in stream) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()
    assert sum(1 for _ in checked(itertools.repeat(NewPrompt("x"), MAX_PROMPTS))) == MAX_PROMPTS
    with pytest.raises(InvalidInput, match="too many"):
        for _ in checked(itertools.repeat(NewPrompt("x"), MAX_PROMPTS + 1)):
            pass


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("p.txt", b"ok\n"),
        ("p.csv", b'id,prompt\n1,"'),
        ("p.jsonl", b'{"prompt": "ok"}\n{"prompt": "'),
        ("p.json", b"["),
    ],
)
def test_a_line_of_300_mb_is_told_and_not_held(tmp_path: Path, name: str, beginning: bytes) -> None:
    file = tmp_path / name
    with file.open("wb") as out:
        out.write(beginning)
        for _ in range(300):
            out.write((b"[" if name == "p.json" else b"x") * 2**20)
    tracemalloc.start()
    try:
        with file.open("rb") as stream, pytest.raises(InvalidInput, match=r"longer than|nested too deeply"):
            list(read(stream, name))
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
        file.unlink()
