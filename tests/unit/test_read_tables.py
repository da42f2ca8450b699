"""Tables: separators, quotes, headers, workbooks; what is wrong with a row is said with its line."""

import csv
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.conversation import NewPrompt, checked
from tasks.errors import InvalidInput
from tasks.files.read import Reading, preview, read
from tasks.files.read.reading import Column


def load(content: str | bytes, name: str = "p.csv", reading: Reading | None = None) -> list[NewPrompt]:
    raw = content.encode() if isinstance(content, str) else content
    return list(checked(read(io.BytesIO(raw), name, reading)))


def workbook(*rows: list[object]) -> bytes:
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.create_sheet("other")
    book.save(file)
    return file.getvalue()


def test_a_gbk_table_of_500_records_with_line_ends_in_quotes_gives_500_prompts() -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=";")
    writer.writerow(["编号", "提示词", "类别", "参考答案"])
    writer.writerows([number, f'第{number}题；\n请写；"诗";', "写作", f"答案\n{number}"] for number in range(500))
    prompts = load(file.getvalue().encode("gbk"), "题.txt")
    assert len(prompts) == 500
    assert prompts[7] == NewPrompt('第7题；\n请写；"诗";', category="写作", reference="答案\n7", custom_id="7")


CELLS = st.text(st.characters(codec="gb18030", exclude_characters="\r\x00\ufeff"), max_size=12)
RECORDS = st.lists(st.tuples(CELLS.filter(str.strip), CELLS, CELLS), min_size=1, max_size=8)


@given(
    RECORDS,
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8-sig", "utf-16", "utf-8"]),
)
def test_records_are_the_same_from_every_way_to_write_them(
    records: list[tuple[str, str, str]], separator: str, end: str, codec: str
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("Prompt ", "reference", "place"), *records])
    tabular = file.getvalue().replace("\n", end).encode(codec)
    keyed = [dict(zip(("prompt", "reference", "place"), record, strict=True)) for record in records]
    lines = "".join(json.dumps(one, ensure_ascii=False) + end for one in keyed).encode(codec)
    expected = [
        NewPrompt(text, reference=reference or None, variables={"place": place}) for text, reference, place in records
    ]
    if not any("{{" in text for text, _, _ in records):
        assert load(tabular, "p.tsv") == expected
        assert load(lines, "p.txt") == expected


def test_columns_are_mapped_by_hand_and_the_others_fill_the_template() -> None:
    content = "frage,land,jahr,text\nWas?,中国,1999,no\n"
    reading = Reading(
        columns={Column.PROMPT: "Frage", Column.CATEGORY: "land"}, template="{{prompt}} {{ jahr }} {{land}}"
    )
    (prompt,) = load(content, reading=reading)
    assert prompt.text == "Was? 1999 中国" and prompt.category == "中国"
    assert prompt.variables == {"jahr": "1999", "text": "no"}


def test_names_in_braces_are_filled_where_there_is_such_a_column() -> None:
    (prompt,) = load("prompt,who\nWho is {{who}} and what is {{ loop.index }}?,Li\n")
    assert prompt.text == "Who is Li and what is {{ loop.index }}?"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("prompt,category\n", "holds no prompt"),
        ("a,b\n1,2\n", "line 2: No column is known to hold prompts; there are a, b"),
        ("prompt,Prompt \n1,2\n", "line 1: Columns 1 and 2 are both called 'prompt'"),
        ('prompt,b\na,1\n"x\ny",1\n"c\n' + "d,2\n" * 9, "line 5: The quote that opens here is never closed"),
        ('prompt,b\n"c\n' + "d,2\n" * 90_000, "line 2: The quote that opens here is never closed"),
        ('prompt,b\n"a" b,1\n', "line 2: A cell goes on"),
        ("prompt,b\na,1\nb,2,3\n", "line 3: It has 3 cells, but the header has 2"),
        ("prompt,b\na\x00,1\n", "line 2: It has a NUL"),
        ("prompt,b\n ,1\n", "line 2: The prompt is empty"),
        ("prompt,id\na,1\n\nb,1\n", "line 4: The prompt has the custom_id '1'"),
        ("prompt,category\na," + "x" * 101 + "\n", "line 2: category has 101 characters"),
        ("prompt,id\na," + "x" * 513 + "\n", "line 2: id has 513 characters"),
        ("prompt,b\n" + "x" * 32_001 + ",1\n", "line 2: The prompt has 32001 characters"),
        ("prompt,b\n" + "x" * 140_000 + ",1\n", "line 2: A cell is longer"),
        ("prompt,b\n" + "x" * 3_000_000 + ",1\n", "line 2: the line is longer"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load(content)
    assert problem in raised.value.message


def test_a_preview_counts_every_bad_line_and_the_others_can_be_read() -> None:
    rows = [f"text {number},{'x' * 101 if number % 2 else 'c'}" for number in range(4000)]
    content = "\n".join(["prompt,category", *rows]).encode()
    found = preview(io.BytesIO(content), "p.csv")
    assert (found.prompts, found.problem_count, len(found.problems)) == (2000, 2000, 1000)
    assert found.problems[1].line == 5 and found.columns == ("prompt", "category") and len(found.first) == 5
    assert found.reading.columns == {Column.PROMPT: "prompt", Column.CATEGORY: "category"}
    assert "columns" in found.guessed and sum(found.lengths.values()) == 2000
    with pytest.raises(InvalidInput, match="line 3"):
        load(content)
    assert len(load(content, reading=found.reading.model_copy(update={"leave_out": True}))) == 2000


def test_a_quote_that_is_never_closed_cannot_be_left_out() -> None:
    with pytest.raises(InvalidInput, match="line 3: The quote"):
        load('prompt,b\na,1\n"b,2\nc,3\n', reading=Reading(leave_out=True))


def test_a_workbook_is_a_table() -> None:
    content = workbook([None, None], ["问题", "类别", "编号"], ["甲\n乙", "写作", 3], [None], ["丙", None, 4.0])
    prompts = load(content, "p.xlsx")
    assert prompts == [NewPrompt("甲\n乙", category="写作", custom_id="3"), NewPrompt("丙", custom_id="4")]
    assert preview(io.BytesIO(content), "p.xlsx").notes == ("Only the sheet Sheet is read; other is left aside.",)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([["prompt", "b"], ["x", 1], ["=A1&B1", 2]], "line 3: Cell A3 holds a formula. Copy the column"),
        ([["prompt"], ["x", "y"]], "line 2: It has a value in B2"),
        ([["prompt"]], "holds no prompt"),
    ],
)
def test_what_is_wrong_with_a_workbook_is_said_with_its_row(rows: list[list[object]], problem: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load(workbook(*rows), "p.xlsx")
    assert problem in raised.value.message


def test_a_damaged_workbook_is_refused() -> None:
    content, damaged = workbook(["prompt"], ["x"]), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(damaged, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry)[: 300 if "sheet1" in entry.filename else None])
    with pytest.raises(InvalidInput, match="damaged workbook"):
        load(damaged.getvalue(), "p.xlsx")
    with pytest.raises(InvalidInput, match="ZIP"):
        load(content[: len(content) // 2], "p.xlsx")


@pytest.mark.parametrize(
    ("reading", "problem"),
    [
        ({}, "No column is known to hold prompts; there are 主题, id."),
        ({"columns": {"prompt": "没有"}}, "There is no column '没有'; there are 主题, id."),
        ({"columns": {"prompt": "主题", "category": "没有"}}, "There is no column '没有'; there are 主题, id."),
        ({"template": "{{没有}}"}, "The template has {{没有}}, but there is no such column."),
    ],
)
def test_a_column_that_is_missing_is_said_once(reading: dict[str, object], problem: str) -> None:
    seen = preview(io.BytesIO("主题,id\n春,1\n夏,2\n".encode()), "p.csv", Reading.model_validate(reading))
    assert (seen.prompts, seen.problem_count) == (0, 1)
    assert seen.problems[0].reason == problem and seen.problems[0].final


def test_a_guess_is_overridden_by_no_column_at_all() -> None:
    reading = Reading(columns={Column.CUSTOM_ID: ""})
    file = io.BytesIO(b"prompt,id\na,1\nb,1\n")
    assert preview(file, "p.csv").problem_count == 1
    seen = preview(file, "p.csv", reading)
    assert seen.reading.columns == {Column.PROMPT: "prompt", Column.CUSTOM_ID: ""}
    for each in (reading, seen.reading):
        prompts = load(file.getvalue(), reading=each)
        assert [(prompt.custom_id, prompt.variables) for prompt in prompts] == [
            (None, {"id": "1"}),
            (None, {"id": "1"}),
        ]


def test_a_workbook_that_unpacks_to_a_gigabyte_is_not_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "p.xlsx"
    with (
        zipfile.ZipFile(io.BytesIO(workbook(["prompt"], ["x"]))) as old,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in old.infolist():
            if "sheet1" not in entry.filename:
                new.writestr(entry, old.read(entry))
        with new.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            for _ in range(2**10 + 1):
                sheet.write(b" " * 2**20)
    tracemalloc.start()
    try:
        with bomb.open("rb") as stream, pytest.raises(InvalidInput, match="too large when it is unpacked"):
            preview(stream, "p.xlsx")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
