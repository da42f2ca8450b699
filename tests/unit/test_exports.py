"""Exports: each format as its own reader sees it, and the errors that come before the first byte."""

import csv
import importlib.util
import io
import json
import zipfile
from typing import Any

import openpyxl
import orjson
import pandas
import pyarrow.parquet
import pytest
from openai.types import Completion as TextCompletion
from openai.types.chat import ChatCompletion
from sqlalchemy import delete, insert, update

from tasks.conversation import Message, NewPrompt, Role, checked
from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.files.read import read
from tasks.files.write import ExportFormat, export
from tasks.files.write.naming import safe_name
from tasks.files.write.parquet import METADATA_KEY
from tasks.ledger import Ledger
from tasks.ledger.records import Completion, Environment, NewRun, ScoreRow
from tasks.ledger.tables import completion, environment, run, run_model, score
from tasks.openai.bodies import Endpoint
from tasks.openai.results import result
from tasks.registry import Registry
from tasks.settings import ROOT
from tasks.states import FinishReason, RunKind

PROMPTS = [
    NewPrompt(
        "=1+1 是什么?", category="数学", reference="2", custom_id="81", checks=({"type": "equals", "value": "2"},)
    ),
    NewPrompt("然后呢?", follows=0, tags=("later",)),
    NewPrompt("hi\nthere", "short", (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b")), variables={"x": "y"}),
    NewPrompt("last", custom_id="x", sampling={"temperature": 0.0}),
]
A, B = Registry.load(ROOT / "models.toml").names[:2]
PER_MODEL = {ExportFormat.MT_BENCH, ExportFormat.INSPECT, ExportFormat.LM_EVAL}


def asked(ledger: Ledger, prompts: list[NewPrompt] = PROMPTS) -> str:
    registry = Registry.load(ROOT / "models.toml")
    entries = {name: registry.get(name) for name in (A, B)}
    new = NewRun(RunKind.BULK, "o", {A: 4, B: 4}, {"top_k": 7}, samples=2, title="小 a/b", entries=entries)
    return ledger.runs.submit(new, prompts)[0].id


@pytest.fixture
def done(ledger: Ledger) -> str:
    """A run of two models: answer 3.1 of the first failed, answers of prompt 3 of the second are from the cache."""
    run_id = asked(ledger)
    times = {"created": 10.0, "enqueued": 10.0, "claimed": 11.0, "admitted": 11.0, "first_token": 11.5}
    with ledger.database.write() as connection:
        connection.execute(insert(environment).values(id="e", facts={"torch": "2"}))
        for model, idx, sample in ((model, idx, sample) for model in (A, B) for idx in range(4) for sample in (0, 1)):
            failed = (model, idx, sample) == (A, 3, 1)
            said = {"text": "", "finish_reason": "error", "error": "broke"} if failed else {"finish_reason": "stop"}
            said = {"text": f"=答{idx}{sample}", "prompt_tokens": 5, "output_tokens": 9} | said
            key = {"run": run_id, "model": model, "idx": idx, "sample": sample}
            about = {"written": 13.0, "last_token": 12.0, "attempt": 1, "characters": 4, "environment": "e"}
            origin = "cached" if (model, idx) == (B, 3) else "computed"
            row = key | times | about | said | {"origin": origin, "thinking": "嗯" if idx == 2 else None}
            connection.execute(insert(completion).values(row))
            connection.execute(insert(score).values(key | {"metric": "valid@1", "value": float(not failed)}))
        connection.execute(update(run_model).values(done=8, failed=0))
        connection.execute(update(run_model).where(run_model.c.model == A).values(done=7, failed=1))
        connection.execute(update(run).values(state="done", finished=14.0))
    return run_id


def written(ledger: Ledger, run_id: str, format: ExportFormat, *models: str) -> bytes:
    return b"".join(export(ledger, run_id, format, models or None).pieces)


def lines(data: bytes) -> list[Any]:
    return [orjson.loads(one) for one in data.splitlines()]


def test_a_run_is_read_alike_from_each_database(each_ledger: Ledger) -> None:
    run_id = asked(each_ledger)
    late = each_ledger.growth.follow(run_id, NewPrompt("later", follows=1))
    for item in each_ledger.outbox.dispatch(A, {RunKind.ARENA: 0, RunKind.BULK: 1000}):
        claim = each_ledger.chunks.claim(item.chunk, "w")
        assert claim
        rows = [Completion(run_id, A, *key, f"{key}", FinishReason.STOP) for key in claim.missing]
        each_ledger.chunks.write(claim, rows, Environment("e", {}))
        each_ledger.scores.write(item.chunk, [ScoreRow(run_id, A, *key, {"m": 0.5}) for key in claim.missing])
    results = each_ledger.results
    (page,) = results.pages(run_id, [B, A], 2)
    assert [len(result.completions) for result in page[:4]] == [2] * 4 and page[0].scores == ({"m": 0.5}, {"m": 0.5})
    assert page[:4] == [result for pair in results.pages(run_id, [B, A], 500) for result in pair][:4]
    assert [turn.prompt.idx for turn in page[late].earlier] == [0, 1]
    assert [message.content for message in page[1].messages(A, 1)] == [PROMPTS[0].text, "(0, 1)", PROMPTS[1].text]
    assert results.late_turns(run_id) == {0: [late]} and list(results.followed(run_id, 5)) == [1, 1, 0, 0, 0]
    assert results.environments(run_id, [A, B], 5) == {"e"} and results.metrics(run_id, [A]) == ["m"]
    assert results.means(run_id, A) == {"m": (10, 0.5)} and results.tokens(run_id, A) == (0, 0)


def test_csv_opens_in_excel_without_formulas(ledger: Ledger, done: str) -> None:
    data = written(ledger, done, ExportFormat.CSV)
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert len(rows) == 16 and rows[0]["prompt"] == "'=1+1 是什么?" and rows[0]["answer"] == "'=答00"
    assert not any(cell[:1] in tuple("=+-@\t\r") for row in rows for cell in row.values())
    (failed,) = (row for row in rows if row["finish_reason"] == "error")
    assert (failed["model"], failed["error"], failed["score valid@1"]) == (A, "broke", "0.0")
    cached = [row for row in rows if row["origin"] == "cached"]
    assert len(cached) == 2 and {row["service_seconds"] for row in cached} == {""}
    assert rows[0]["service_seconds"] == "1.0" and rows[0]["category"] == "数学"
    frame = pandas.read_csv(io.BytesIO(data))
    assert frame["ttft_seconds"].dropna().unique().tolist() == [0.5] and frame["prompt"][8] == "hi\nthere"


def opened_in_chinese_excel(data: bytes) -> list[list[Any]]:
    """The cells as Excel in China takes them: UTF-8 with a byte order mark, else GBK; = begins what is computed."""
    text = data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "gbk")
    book = openpyxl.Workbook()
    for row in csv.reader(io.StringIO(text, newline="")):
        book.active.append(row)
    saved = io.BytesIO()
    book.save(saved)
    return [list(row) for row in openpyxl.load_workbook(saved).active.iter_rows()]


@pytest.mark.parametrize("format", [ExportFormat.CSV, ExportFormat.CSV_WIDE])
def test_excel_computes_nothing_and_shows_chinese(ledger: Ledger, done: str, format: ExportFormat) -> None:
    rows = opened_in_chinese_excel(written(ledger, done, format))
    assert len({len(row) for row in rows}) == 1
    assert "f" not in {cell.data_type for row in rows for cell in row}
    shown = {cell.value for row in rows for cell in row}
    assert {"数学", "'=答00"} <= shown
    guess = opened_in_chinese_excel("=答".encode("gbk"))  # what an unguarded file would do
    assert guess[0][0].data_type == "f"


def test_wide_csv_has_a_row_a_prompt_and_a_column_a_model(ledger: Ledger, done: str) -> None:
    frame = pandas.read_csv(io.BytesIO(written(ledger, done, ExportFormat.CSV_WIDE, B, A)))
    assert len(frame) == 8 and list(frame.columns).index(B) + 1 == list(frame.columns).index(A)
    assert frame[B].tolist() == [f"'=答{idx}{sample}" for idx in range(4) for sample in (0, 1)]
    assert frame[f"error ({A})"].dropna().tolist() == ["broke"]


def test_jsonl_begins_with_what_the_run_was_made_with(ledger: Ledger, done: str) -> None:
    header, *records = lines(written(ledger, done, ExportFormat.JSONL))
    assert header["type"] == "run" and header["prompt_set"]["digest"] == ledger.runs.get(done).prompt_set
    assert header["models"][0]["settings"]["top_k"] == 7 and header["environments"] == {"e": {"torch": "2"}}
    assert [record["type"] for record in records] == ["completion"] * 16
    assert records[0]["checks"] == [{"type": "equals", "value": "2"}] and records[0]["scores"] == {"valid@1": 1.0}
    assert [message["role"] for message in records[8]["messages"]] == ["system", "user", "assistant", "user"]
    assert written(ledger, done, ExportFormat.JSONL) == written(ledger, done, ExportFormat.JSONL)


def test_parquet_has_types_and_the_run_in_its_metadata(ledger: Ledger, done: str) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(written(ledger, done, ExportFormat.PARQUET)))
    assert table.num_rows == 16 and str(table.schema.field("service_seconds").type) == "double"
    assert json.loads(table.schema.metadata[METADATA_KEY.encode()])["run"]["id"] == done
    assert table["answer"][0].as_py() == "=答00" and table["score valid@1"].null_count == 0


def test_prompts_can_be_read_again(ledger: Ledger, done: str) -> None:
    again = list(checked(read(io.BytesIO(written(ledger, done, ExportFormat.PROMPTS)), "again.jsonl")))
    assert again == PROMPTS


def test_late_turns_stand_with_their_conversation(ledger: Ledger) -> None:
    run_id = asked(ledger)
    late = ledger.growth.follow(run_id, NewPrompt("later", follows=1))
    ledger.growth.follow(run_id, NewPrompt("latest", follows=late))
    again = list(checked(read(io.BytesIO(written(ledger, run_id, ExportFormat.PROMPTS)), "again.jsonl")))
    assert [(one.text, one.follows) for one in again[:5]] == [
        (PROMPTS[0].text, None),
        (PROMPTS[1].text, 0),
        ("later", 1),
        ("latest", 2),
        (PROMPTS[2].text, None),
    ]


def test_a_text_with_braces_is_not_filled_in_again(ledger: Ledger) -> None:
    run_id = asked(ledger, [NewPrompt("say {{a}}", variables={"b": "{{a}}"})])
    (again,) = read(io.BytesIO(written(ledger, run_id, ExportFormat.PROMPTS)), "again.jsonl")
    assert (again.text, again.variables) == ("say {{a}}", None)


def test_openai_lines_are_what_its_client_reads(ledger: Ledger, done: str) -> None:
    records = lines(written(ledger, done, ExportFormat.OPENAI))
    assert [one["custom_id"] for one in records] == ["81"] * 4 + ["prompt-1"] * 4 + ["prompt-2"] * 4 + ["x"] * 4
    assert len({one["id"] for one in records}) == 16
    (failed,) = (one for one in records if one["response"] is None)
    assert failed["error"] == {"code": "error", "message": f"{A}: broke"}
    bodies = [ChatCompletion.model_validate(one["response"]["body"]) for one in records if one["response"]]
    assert bodies[0].choices[0].message.content == "=答00" and bodies[0].usage and bodies[0].usage.total_tokens == 14
    line = result(Endpoint.COMPLETIONS, "81", ledger.completions.page(done)[:1])
    assert TextCompletion.model_validate(line["response"]["body"]).choices[0].text == "=答00"


def test_llm_comparator_compares_a_pair(ledger: Ledger, done: str) -> None:
    data = orjson.loads(written(ledger, done, ExportFormat.LLM_COMPARATOR, B, A))
    assert [model["name"] for model in data["models"]] == [B, A] and len(data["examples"]) == 8
    names = {field["name"] for field in data["metadata"]["custom_fields_schema"]}
    assert all(example["custom_fields"].keys() == names for example in data["examples"])
    assert data["examples"][-1]["output_text_a"] == "=答31" and data["examples"][-1]["output_text_b"] == ""
    assert "=答00" in data["examples"][2]["input_text"]


def test_mt_bench_has_the_answers_along_a_conversation(ledger: Ledger, done: str) -> None:
    records = lines(written(ledger, done, ExportFormat.MT_BENCH, A))
    assert [one["question_id"] for one in records] == [81, 2, "x"]
    assert records[0]["choices"][1] == {"index": 1, "turns": ["=答01", "=答11"]}
    assert records[2]["choices"][1]["turns"] == ["ERROR"]


def test_promptfoo_sums_up_its_results(ledger: Ledger, done: str) -> None:
    results = orjson.loads(written(ledger, done, ExportFormat.PROMPTFOO))["results"]
    assert results["version"] == 3 and len(results["results"]) == 16
    assert (results["stats"]["successes"], results["stats"]["errors"]) == (15, 1)
    assert [column["metrics"]["testErrorCount"] for column in results["prompts"]] == [1, 0]


def test_lm_eval_has_a_line_a_prompt(ledger: Ledger, done: str) -> None:
    records = lines(written(ledger, done, ExportFormat.LM_EVAL, A))
    assert [one["doc_id"] for one in records] == [0, 1, 2, 3] and records[0]["target"] == "2"
    assert records[3]["resps"] == [["=答30", ""]] and records[3]["valid@1"] == 0.5


def test_inspect_has_an_epoch_a_sample(ledger: Ledger, done: str) -> None:
    log = orjson.loads(written(ledger, done, ExportFormat.INSPECT, A))
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]
    assert [(one["id"], one["epoch"]) for one in log["samples"][:2]] == [("81", 1), ("81", 2)]
    assert log["results"]["scores"][0]["metrics"]["mean"]["value"] == 7 / 8
    assert [one["content"] for one in log["samples"][2]["input"]] == ["=1+1 是什么?", "=答00", "然后呢?"]


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
def test_inspect_reads_its_log(ledger: Ledger, done: str, tmp_path: Any) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(written(ledger, done, ExportFormat.INSPECT, A))
    reader = importlib.import_module("inspect_ai.log").read_eval_log
    assert len(reader(str(path)).samples) == 8 and reader(str(path), header_only=True).results.scores


def test_every_eval_ever_pairs_an_aggregate_with_its_samples(ledger: Ledger, done: str) -> None:
    archive = zipfile.ZipFile(io.BytesIO(written(ledger, done, ExportFormat.EVERY_EVAL_EVER)))
    assert archive.testzip() is None and len(archive.namelist()) == 4
    for name in (name for name in archive.namelist() if name.endswith(".json")):
        record = orjson.loads(archive.read(name))
        detail = record["detailed_evaluation_results"]
        samples = lines(archive.read(detail["file_path"]))
        assert len(samples) == detail["total_rows"] == 16
        assert {one["evaluation_id"] for one in samples} == {record["evaluation_id"]}
    assert {one["interaction_type"] for one in samples} == {"single_turn", "multi_turn"}


@pytest.mark.parametrize("format", sorted(PER_MODEL))
def test_a_file_of_one_model_comes_in_an_archive_for_several(ledger: Ledger, done: str, format: ExportFormat) -> None:
    made = export(ledger, done, format)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(made.pieces)))
    suffix = export(ledger, done, format, [A]).name.removeprefix("小-a-b")
    assert made.name.endswith(".zip") and archive.namelist() == [f"{A}{suffix}", f"{B}{suffix}"]
    assert archive.read(f"{B}{suffix}") == written(ledger, done, format, B)


def test_everything_in_one_archive(ledger: Ledger, done: str) -> None:
    archive = zipfile.ZipFile(io.BytesIO(written(ledger, done, ExportFormat.ZIP)))
    assert archive.read("小-a-b.csv") == written(ledger, done, ExportFormat.CSV)
    assert len(archive.namelist()) == 5 and orjson.loads(archive.read("run.json"))["run"]["id"] == done


@pytest.mark.parametrize("format", sorted(ExportFormat))
def test_errors_come_before_the_first_piece(ledger: Ledger, done: str, format: ExportFormat) -> None:
    with pytest.raises(NotFound):
        export(ledger, "none", format)
    with pytest.raises(InvalidInput, match="not in this run"):
        export(ledger, done, format, [A, "other"])
    if format is ExportFormat.LLM_COMPARATOR:
        with pytest.raises(InvalidInput, match="two models"):
            export(ledger, done, format, [A])
    if format is not ExportFormat.PROMPTS:
        with pytest.raises(Conflict, match="done yet"):
            export(ledger, asked(ledger), format)


def test_a_run_that_is_deleted_meanwhile_is_not_taken_for_a_short_one(ledger: Ledger, done: str) -> None:
    pieces = export(ledger, done, ExportFormat.OPENAI).pieces
    next(pieces)
    with ledger.database.write() as connection:
        connection.execute(delete(run).where(run.c.id == done))
    with pytest.raises(NotFound):
        next(pieces)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("速度 测试/1", "速度-测试-1"),
        ("", "x"),
        ("../..", "x"),
        ("con", "_con"),
        ('a"\r\nb', "a-b"),
        ("字" * 99, "字" * 50),
    ],
)
def test_names_are_safe_on_every_system(title: str, name: str) -> None:
    assert safe_name(title, "x") == name
