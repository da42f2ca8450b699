"""What is no file of answers says so, with the line: nothing of it is taken as something else."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidInput
from tasks.files.read.answers import Problems, archive, read_answers
from tasks.files.read.answers.problems import KEPT

GOOD = b'{"custom_id": "1", "output": "a"}\n'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty|holds no answer"),
        (b" \n\n", "nothing but white space|holds no answer"),
        (b"custom_id,output\n", "holds no answer"),
        (b"custom_id,output\n1,\n", "holds no answer. Line 2"),
        (b"[]", "holds no answer"),
        (b"hello\nworld\n", "no column of answers"),
        (b"output\na\n", "no column of ids or prompts"),
        (b'{"prompt": "p"}\n', "no column of answers.*it has prompt"),
        (GOOD + b"{broken}\n", "line 2 is no valid JSON at character 2"),
        (GOOD + b'{"custom_id": "\xff"}\n', "line 2 is no valid JSON"),
        (GOOD + b"[1]\n", "line 2 is no JSON object"),
        (b"[1]", "record 1 is no JSON object"),
        (b'{\n"a": 1,\n}\n', "no valid JSON at line 2"),
        (GOOD + b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n", "line 2 is no valid JSON"),
        (GOOD + b'{"a": NaN, "b": ' + b"[" * 100_000 + b"}\n", "line 2 is no valid JSON"),
        (GOOD + b'{"custom_id": "2", "output": "\\u0000"}\n', "line 2: the answer contains a NUL"),
        (GOOD + b'{"n": NaN, "custom_id": "2", "output": "\\ud800"}\n', "line 2: the answer has half a surrogate"),
        (b"id,output\n1,a\x00b\n", "line 2: It has a NUL"),
        (b"id,output\n1,a\n2,b,c\n", "line 3: It has 3 cells"),
        (b'id,output\n1,"a\n2,b\n', "line 2: .*quote"),
        (b"id,id,output\n1,2,a\n", "both called"),
        (b"id,output\n1,\x81\n", "not UTF-8 text|not GB18030 text|middle of a character"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"PK\x03\x04 and no more", "broken zip"),
    ],
)
def test_what_is_wrong_is_told(content: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=rf"(?s)^f\b.*{told}") as error:
        list(read_answers(io.BytesIO(content), "f"))
    assert error.value.field == "file"
    assert len(error.value.message) < 500


class Endless(io.RawIOBase):
    """300 MB that begin as told and never end a line."""

    def __init__(self, beginning: bytes):
        self.beginning, self.size, self.at = beginning, 300 * 2**20, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (self.size if whence == io.SEEK_END else 0)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: bytearray) -> int:
        count = min(len(buffer), self.size - self.at)
        own = self.beginning[self.at : self.at + count]
        buffer[:count] = own + b"x" * (count - len(own))
        self.at += count
        return count


@pytest.mark.parametrize("beginning", [b'{"custom_id": "1", "output": "', GOOD, b"[", b"id,output\n1,"])
def test_a_line_of_300_mb_is_refused_without_being_read(beginning: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"longer than|is one JSON document"):
            list(read_answers(io.BufferedReader(Endless(beginning)), "f"))
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_many_answers_are_read_in_constant_memory() -> None:
    record = json.dumps({"custom_id": "1", "output": "x" * 1000}).encode() + b"\n"
    stream = io.BytesIO(record * 20_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_answers(stream, "f")) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


HEADER = {"header.json": b'{"eval": {"model": "m"}}'}


def test_a_zip_that_would_be_large_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped({**HEADER, "samples/1_epoch_1.json": b" " * 2**20})
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 2**19)
    with pytest.raises(InvalidInput, match="the largest of 1048576"):
        list(read_answers(io.BytesIO(bomb), "f"))


def test_a_member_that_is_larger_than_it_says_is_refused() -> None:
    bomb = bytearray(zipped({**HEADER, "samples/1_epoch_1.json": b'{"a": 1}' + b" " * 2**24}))
    central = bomb.rindex(b"PK\x01\x02")
    bomb[central + 24 : central + 28] = (100).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"is broken|is not as large"):
            list(read_answers(io.BytesIO(bytes(bomb)), "f"))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"xl/workbook.xml": b"<x/>"}, "no log of inspect"),
        (HEADER, "holds no answer"),
        ({"header.json": b"{broken"}, "header.json is no valid JSON"),
        ({**HEADER, "samples/1_epoch_1.json": b"[1"}, "samples/1_epoch_1.json is no valid JSON"),
        ({**HEADER, "samples/1_epoch_1.json": b"[1]"}, "failed or has no text"),
    ],
)
def test_archives_that_are_no_logs(members: dict[str, bytes], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        list(read_answers(io.BytesIO(zipped(members)), "f"))


def test_many_failures_are_counted_and_few_are_kept() -> None:
    problems = Problems()
    failed = b'{"custom_id": "1", "response": null, "error": {"message": "away"}}\n'
    good = b'{"custom_id": "2", "response": {"body": {"choices": [{"text": "a"}]}}}\n'
    assert len(list(read_answers(io.BytesIO(failed * 500 + good), "f", problems))) == 1
    assert (problems.count, len(problems.first), problems.first[0].line) == (500, KEPT, 1)
    assert "away" in problems.first[0].reason


BEGINNINGS = st.sampled_from(
    [b"", b"{", b"[", b"id,output\n", b"PK\x03\x04", b"PAR1", GOOD, b"\xff\xfe", b"\xef\xbb\xbf"]
)


@given(BEGINNINGS, st.binary(max_size=200))
def test_any_bytes_are_answers_or_invalid_input(beginning: bytes, rest: bytes) -> None:
    def answers() -> Iterator[str]:
        for answer in read_answers(io.BytesIO(beginning + rest), "f"):
            yield answer.text

    try:
        assert all(isinstance(text, str) for text in answers())
    except InvalidInput as error:
        assert error.message
