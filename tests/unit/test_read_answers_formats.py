"""Answers as other programs write them: each format is known by its content and read for what it says."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tasks.errors import InvalidInput
from tasks.files.read.answers import Problems, read_answers
from tasks.ledger.records import NewAnswer

CHAT = [{"role": "system", "content": "简短"}, {"role": "user", "content": "你好"}]


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def load(content: bytes) -> tuple[list[NewAnswer], list[int]]:
    """The answers, and the lines that were left out."""
    problems = Problems()
    answers = list(read_answers(io.BytesIO(content), "f", problems))
    assert problems.count == len(problems.first)
    return answers, [problem.line for problem in problems.first]


def sample(**keys: Any) -> dict[str, Any]:
    return {"doc_id": 3, "doc": {"q": "x"}, "target": "t", "filtered_resps": ["5"]} | keys


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ([["Question: 1+1?", {"until": ["\n"]}]], "Question: 1+1?"),
        ({"gen_args_0": {"arg_0": "Question: 1+1?", "arg_1": {}}}, "Question: 1+1?"),
        ([[json.dumps(CHAT), {}]], "你好"),
        ([["[{ begins like JSON", {}]], "[{ begins like JSON"),
    ],
)
def test_lm_eval_joins_by_the_text_of_its_request(arguments: Any, prompt: str) -> None:
    answers, left_out = load(lines(sample(arguments=arguments, resps=[["= 2", "= 3"]])))
    assert answers == [
        NewAnswer("= 2", prompt=prompt, sample=0, line=1),
        NewAnswer("= 3", prompt=prompt, sample=1, line=1),
    ]
    assert left_out == []


def test_lm_eval_without_requests_joins_by_document_and_has_metrics_that_are_no_numbers() -> None:
    likelihood = sample(arguments=[["a", " b"]], resps=[[["-1.5", "False"]]])
    content = lines(likelihood, sample(resps=[["yes"]], acc=float("nan")))
    assert b"NaN" in content
    assert load(content) == ([NewAnswer("yes", custom_id="3", line=2)], [1])


def inspect_samples() -> list[dict[str, Any]]:
    def output(content: Any) -> dict[str, Any]:
        return {
            "model": "m",
            "choices": [{"message": {"role": "assistant", "content": content}, "stop_reason": "stop"}],
        }

    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "您"}, {"type": "text", "text": "好"}]
    return [
        {"id": 7, "epoch": 1, "input": CHAT, "target": "x", "output": output(parts)},
        {"id": "a1", "epoch": 2, "input": "1+1?", "target": "2", "output": output("2")},
        {"id": "a2", "epoch": 1, "input": "?", "output": {"choices": []}, "error": {"message": "away"}},
    ]


def inspect_archive(compression: int, header: str = "header.json") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("_journal/summaries/1.json", "[]")
        for one in inspect_samples():
            archive.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
        archive.writestr(header, json.dumps({"version": 2, "eval": {"model": "openai/m"}}))
    return file.getvalue()


INSPECTED = [
    NewAnswer("您好", "7", "你好", sample=0, model="openai/m", line=1),
    NewAnswer("2", "a1", "1+1?", sample=1, model="openai/m", line=2),
]


@pytest.mark.parametrize("indent", [None, 2])
def test_inspect_logs_of_json(indent: int | None) -> None:
    log = {"version": 2, "status": "success", "eval": {"model": "openai/m"}, "samples": inspect_samples()}
    assert load(json.dumps(log, indent=indent).encode()) == (INSPECTED, [3])


@pytest.mark.parametrize(
    ("compression", "header"),
    [
        (zipfile.ZIP_DEFLATED, "header.json"),
        (zipfile.ZIP_STORED, "_journal/start.json"),
    ],
)
def test_inspect_archives(compression: int, header: str) -> None:
    assert load(inspect_archive(compression, header)) == (INSPECTED, [3])


def test_inspect_archives_are_packed_with_zstandard() -> None:
    """As inspect writes them by now. Python 3.11 cannot, so members are packed beforehand."""
    assert load(packed_with_zstandard(inspect_archive(zipfile.ZIP_STORED))) == (INSPECTED, [3])


def packed_with_zstandard(stored: bytes) -> bytes:
    source = zipfile.ZipFile(io.BytesIO(stored))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for member in source.infolist():
            whole = source.read(member)
            packed = pyarrow.compress(whole, codec="zstd", asbytes=True)
            archive.writestr(member.filename, packed)
            written = archive.infolist()[-1]
            crc = next(one.CRC for one in source.infolist() if one.filename == member.filename)
            written.compress_type, written.file_size, written.CRC = 93, len(whole), crc
    return file.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def test_lighteval_details_of_both_generations() -> None:
    new = {"doc": {"query": "1+1?", "id": "0"}, "model_response": {"text": ["2", "two"], "input": "<user>1+1?"}}
    old = {"example": "1+1?", "full_prompt": "Q: 1+1?", "predictions": ["2"], "gold": ["2"]}
    expected = [NewAnswer("2", prompt="1+1?", line=1), NewAnswer("two", prompt="1+1?", sample=1, line=1)]
    assert load(parquet([new])) == (expected, [])
    assert load(parquet([old])) == ([NewAnswer("2", prompt="Q: 1+1?", line=1)], [])
    with pytest.raises(InvalidInput, match="no prediction that is a text"):
        load(parquet([old | {"predictions": [-1.5]}]))


def test_evalscope_predictions_and_reviews() -> None:
    output = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "您好"}}], "error": None}
    said = [*CHAT, {"role": "assistant", "content": "您好"}]
    prediction = {"index": 0, "model": "qwen", "model_output": output, "messages": said}
    failed = prediction | {"index": 1, "model_output": None}
    assert load(lines(prediction, failed)) == ([NewAnswer("您好", prompt="你好", model="qwen", line=1)], [2])
    score = {"score": {"value": {"acc": 1}, "extracted_prediction": "A", "prediction": "是 A"}, "sample_id": 0}
    review = {"index": 0, "input": "哪个？", "target": "A", "sample_score": score}
    assert load(lines(review, review | {"sample_score": {}})) == ([NewAnswer("是 A", prompt="哪个？", line=1)], [2])


def test_fastchat_answers_have_turns_and_samples() -> None:
    choices = [{"index": 0, "turns": ["a", "b"]}, {"index": 1, "turns": ["c", "$ERROR$"]}]
    record = {"question_id": 81, "answer_id": "x", "model_id": "vicuna", "choices": choices, "tstamp": 1.0}
    of = {"custom_id": "81", "model": "vicuna", "line": 1}
    expected = [NewAnswer("a", **of), NewAnswer("b", turn=1, **of), NewAnswer("c", sample=1, **of)]  # type: ignore[arg-type]
    assert load(lines(record)) == (expected, [1])


def test_arena_hard_answers_of_both_generations() -> None:
    first = {
        "question_id": "q",
        "model_id": "m",
        "choices": [{"index": 0, "turns": [{"content": "a", "token_len": 1}]}],
    }
    assert load(lines(first)) == ([NewAnswer("a", "q", model="m", line=1)], [])
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": "b"}}]
    second = {"uid": "u", "ans_id": "x", "model": "m", "messages": said, "tstamp": 1.0}
    asked = second | {"messages": said[:1]}
    assert load(lines(second, asked)) == ([NewAnswer("b", "u", "?", model="m", line=1)], [2])


def test_openai_batch_output() -> None:
    chat = {"model": "gpt", "choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}
    plain = {"model": "gpt", "choices": [{"text": "c"}]}
    done = [
        {"custom_id": f"r{i}", "response": {"status_code": 200, "body": b}, "error": None}
        for i, b in enumerate((chat, plain))
    ]
    broken = {
        "custom_id": "r2",
        "response": {"status_code": 500, "body": {"error": {"message": "away"}}},
        "error": None,
    }
    expired = {"custom_id": "r3", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    refused = {
        "custom_id": "r4",
        "response": {"status_code": 200, "body": {"choices": [{"message": {"content": None}}]}},
    }
    answers, left_out = load(lines(expired, *done, broken, refused))
    assert answers == [
        NewAnswer("a", "r0", model="gpt", line=2),
        NewAnswer("b", "r0", sample=1, model="gpt", line=2),
        NewAnswer("c", "r1", model="gpt", line=3),
    ]
    assert left_out == [1, 4, 5]


def test_alpaca_eval_outputs_are_one_document() -> None:
    records = [
        {"instruction": "Add.", "input": "1, 1", "output": "2", "generator": "gpt4", "dataset": "helpful_base"},
        {"instruction": "Go.", "output": None, "generator": "gpt4"},
        {"instruction": "Stop.", "output": "", "generator": "gpt4"},
    ]
    answers, left_out = load(json.dumps(records, indent=1).encode())
    assert [(one.prompt, one.text, one.model, one.line) for one in answers] == [
        ("Add.\n\n1, 1", "2", "gpt4", 1),
        ("Stop.", "", "gpt4", 3),
    ]
    assert left_out == [2]


@pytest.mark.parametrize(
    "encode",
    [lambda text: text.encode("gb18030"), lambda text: text.encode("utf-8-sig"), lambda text: text.encode("utf-16")],
    ids=["gb18030", "bom", "utf-16"],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_any_kind(encode: Callable[[str], bytes], separator: str) -> None:
    rows = [
        ["编号", "问题", "回答", "答案", "model", "sample"],
        ["1", "你好？", '"您好，\n再见"', "r", "qwen", "1"],
        ["", "", "", "", "", ""],
        ["2", "在吗", "", "r", "", ""],
        ["3", "谁", "我", "r", "", ""],
    ]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    answers, left_out = load(encode(text))
    assert answers == [
        NewAnswer("您好，\n再见", "1", "你好？", sample=1, model="qwen", line=2),
        NewAnswer("我", "3", "谁", line=6),
    ]
    assert left_out == [5]


def test_any_records_with_a_column_of_answers() -> None:
    records = lines({"id": 5, "messages": CHAT, "output": "a", "answer": "r"}, {"id": 6, "messages": CHAT, "output": 4})
    assert load(records) == ([NewAnswer("a", "5", "你好", line=1), NewAnswer("4", "6", "你好", line=2)], [])
    assert load(parquet([{"prompt": "p", "response": "a"}])) == ([NewAnswer("a", prompt="p", line=1)], [])


def test_a_data_set_of_evalscope_is_no_file_of_answers() -> None:
    record = {"query": "中国的首都是哪里？", "response": "北京"}
    with pytest.raises(InvalidInput, match="data set"):
        load(lines(record))
    assert load(lines(record | {"model": "qwen"}))[0][0].text == "北京"


def test_a_record_of_another_kind_is_left_out() -> None:
    good = {"custom_id": "1", "output": "a"}
    assert load(lines(good, {"something": 1}, good)) == ([NewAnswer("a", "1", line=n) for n in (1, 3)], [2])


def test_files_are_read_from_disk_and_stay_open(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("id,answer\n1,a\n")
    with path.open("rb") as file:
        assert [one.text for one in read_answers(file, path.name)] == ["a"]
        assert not file.closed
