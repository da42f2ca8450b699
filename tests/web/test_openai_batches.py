"""Batches: what becomes of a file, of its lines, and of a process that ends in the middle of making one."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from openai.types import Batch
from openai.types.chat import ChatCompletion
from sqlalchemy import update

from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.batches import ORPHAN_SECONDS
from tasks.ledger.records import Environment
from tasks.ledger.tables import batch
from tasks.service import Service
from tasks.settings import Settings
from tasks.states import FinishReason, RunState
from tests.clock import pass_time
from tests.web import filled
from web import create_app

BODY = {"model": "poet-small", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": BODY | body}


def upload(client: FlaskClient, data: bytes) -> str:
    form = {"purpose": "batch", "file": (io.BytesIO(data), "行.jsonl")}
    answer = client.post("/v1/files", data=form, content_type="multipart/form-data")
    assert answer.status_code == 200 and answer.json, answer.text
    return str(answer.json["id"])


def create(client: FlaskClient, *lines: Any, key: str = "", file: str = "", **changes: Any) -> Batch:
    data = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    asked = {"input_file_id": file or upload(client, data), "endpoint": "/v1/chat/completions"}
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post("/v1/batches", json=asked | {"completion_window": "24h"} | changes, headers=headers)
    assert answer.status_code == 200, answer.text
    return Batch.model_validate(answer.json, strict=True)


def look(client: FlaskClient, batch_id: str) -> Batch:
    return Batch.model_validate(client.get(f"/v1/batches/{batch_id}").json, strict=True)


def counts(found: Batch) -> tuple[int, int, int]:
    assert found.request_counts
    return found.request_counts.total, found.request_counts.completed, found.request_counts.failed


def answer_all(ledger: Ledger, *models: str, failing: str = "") -> None:
    """Every line of these models is answered, but the second sample of the one whose id is ``failing``."""
    for model in models:
        for claim in filled.take(ledger, model):
            rows = [filled.completion(claim, idx, sample, f"{model} {sample}") for idx, sample in claim.missing]
            broken = {"finish_reason": FinishReason.ERROR, "error": "broken", "text": ""}
            fails = [row.sample == 1 and claim.prompts[row.idx].custom_id == failing for row in rows]
            rows = [replace(row, **broken) if bad else row for row, bad in zip(rows, fails, strict=True)]
            assert ledger.chunks.write(claim, rows, Environment("e", {}), rendered={})
            ledger.chunks.finish(claim)


def read(client: FlaskClient, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id
    return [json.loads(one) for one in client.get(f"/v1/files/{file_id}/content").text.splitlines()]


def test_lines_become_runs_and_their_answers_files(client: FlaskClient, ledger: Ledger) -> None:
    made = create(client, line("a", n=2, temperature=0.5), b"", line("b", n=2, model="all"), line("c"), line("d", n=2))
    assert (made.status, counts(made)) == ("in_progress", (5, 0, 0))
    assert made.expires_at and made.expires_at - made.created_at in (86_399, 86_400, 86_401)
    runs = ledger.batches.runs(made.id)
    assert sorted((run.prompts, run.samples, len(run.models)) for run in runs) == [(1, 1, 1), (1, 2, 2), (2, 2, 1)]
    prompts = {prompt.custom_id: prompt for run in runs for prompt in ledger.runs.prompts(run.id)}
    assert prompts["a"].sampling == {"temperature": 0.5} and prompts["c"].sampling is None
    assert {run.title for run in runs} == {"行.jsonl"}
    answer_all(ledger, *filled.MODELS, failing="b")
    done = look(client, made.id)
    assert (done.status, counts(done)) == ("completed", (5, 3, 2))
    output = read(client, done.output_file_id)
    assert sorted(row["custom_id"] for row in output) == ["a", "c", "d"] and all(not row["error"] for row in output)
    bodies = {row["custom_id"]: ChatCompletion.model_validate(row["response"]["body"], strict=True) for row in output}
    assert [choice.message.content for choice in bodies["d"].choices] == ["poet-small 0", "poet-small 1"]
    failed = read(client, done.error_file_id)
    assert [(row["custom_id"], row["response"], row["error"]["code"]) for row in failed] == [("b", None, "error")] * 2
    assert {row["error"]["message"] for row in failed} == {"poet-large: broken", "poet-small: broken"}


def test_every_problem_of_a_file_is_told_and_nothing_is_done(client: FlaskClient, ledger: Ledger) -> None:
    wrong = [
        b"{",
        line("a"),
        line("a"),
        line("b", model="gpt-4"),
        line("c", logprobs=True),
        line("d") | {"method": "GET"},
        line("e") | {"url": "/v1/completions"},
        line("f", stream=True),
        {"custom_id": "g"},
        b"[" * 100_000,
        b"\xff",
    ]
    made = create(client, *wrong)
    assert made.status == "failed" and made.failed_at and made.errors and made.errors.data
    assert [(one.line, one.code, one.param) for one in made.errors.data] == [
        (1, "invalid_json_line", None),
        (3, "invalid", "custom_id"),
        (4, "model_not_found", "body.model"),
        (5, "unsupported_parameter", "body.logprobs"),
        (6, "invalid", "method"),
        (7, "invalid", "url"),
        (8, "invalid", "body.stream"),
        (9, "invalid", "body"),
        (10, "invalid_json_line", None),
        (11, "invalid_json_line", None),
    ]
    assert ledger.runs.total() == 0 and look(client, made.id) == made
    assert [one["id"] for one in client.get("/v1/batches").json["data"]] == [made.id]  # type: ignore[index]


@pytest.mark.parametrize("window", ["", "24", "0h", "31d", "1m", 24])
def test_a_window_is_hours_or_days(client: FlaskClient, window: Any) -> None:
    asked = {"input_file_id": "file-x", "endpoint": "/v1/completions", "completion_window": window}
    answer = client.post("/v1/batches", json=asked)
    assert answer.status_code == 400 and answer.json["error"]["param"] == "completion_window"  # type: ignore[index]


def test_a_cancelled_batch_keeps_what_was_answered(client: FlaskClient, ledger: Ledger) -> None:
    made = create(client, line("a"), line("b", model="poet-large"))
    answer_all(ledger, "poet-small")
    answer = client.post(f"/v1/batches/{made.id}/cancel").json
    ended = Batch.model_validate(answer, strict=True)
    assert (ended.status, counts(ended)) == ("cancelled", (2, 1, 1)) and ended.cancelled_at and ended.cancelling_at
    (failed,) = read(client, ended.error_file_id)
    assert (failed["custom_id"], failed["error"]["code"]) == ("b", "cancelled")
    assert [row["custom_id"] for row in read(client, ended.output_file_id)] == ["a"]


def test_a_batch_whose_time_is_over_expires(client: FlaskClient, ledger: Ledger) -> None:
    made = create(client, line("a"))
    with ledger.database.write() as connection:
        connection.execute(update(batch).values(expires=batch.c.created - 1))
    assert ledger.batches.settle() == 1 and ledger.batches.settle() == 0
    assert {run.state for run in ledger.batches.runs(made.id)} == {RunState.CANCELLED}
    ended = look(client, made.id)
    assert ended.status == "expired" and ended.expired_at == ended.expires_at and ended.output_file_id is None


class Killed(BaseException):
    """What ends a process in the middle."""


def test_a_process_killed_while_making_a_batch_leaves_none_or_one(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (line("a"), line("b", model="poet-large"))
    client = create_app(settings).test_client()
    file = upload(client, b"\n".join(json.dumps(one).encode() for one in lines))

    def dies(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(ledger.batches), "add", dies)  # its runs are there, its row is not
        with pytest.raises(Killed):
            create(client, file=file, key="k")
    assert ledger.runs.total() == 2 and ledger.batches.newest("openai") == []
    again = create(create_app(settings).test_client(), file=file, key="k")
    assert ledger.runs.total() == 2 and counts(again) == (2, 0, 0)
    assert create(client, file=file, key="k").id == again.id
    other = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "48h"}
    assert client.post("/v1/batches", json=other, headers={"Idempotency-Key": "k"}).status_code == 409
    pass_time(ledger, 2 * ORPHAN_SECONDS)
    assert ledger.batches.settle() == 0  # they have a batch


def test_runs_that_no_batch_has_are_removed_and_never_get_one(
    client: FlaskClient, settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, late = type(ledger.batches).add, []

    def dies(*arguments: Any) -> None:
        late.append(arguments)
        raise Killed

    monkeypatch.setattr(type(ledger.batches), "add", dies)
    with pytest.raises(Killed):
        create(client, line("a"))
    assert ledger.batches.settle() == 0 and ledger.runs.total() == 1
    pass_time(ledger, 2 * ORPHAN_SECONDS)
    with pytest.raises(Unavailable):
        add(*late[0])
    assert ledger.batches.settle() == 1 and ledger.runs.total() == 0


def test_a_batch_of_which_one_run_cannot_be_stored_has_none(
    client: FlaskClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Service.submit

    def fails(self: Service, **options: Any) -> Any:
        if options["models"] == ["poet-large"]:
            raise Unavailable("away")
        return submit(self, **options)

    monkeypatch.setattr(Service, "submit", fails)
    file = upload(client, b"\n".join(json.dumps(one).encode() for one in (line("a"), line("b", model="poet-large"))))
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    assert client.post("/v1/batches", json=asked).status_code == 503
    assert ledger.runs.total() == 0 and ledger.batches.newest("openai") == []


def test_a_repeated_request_that_fails_takes_no_run_from_the_batch_that_the_first_one_made(
    client: FlaskClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = upload(client, b"\n".join(json.dumps(one).encode() for one in (line("a"), line("b", model="poet-large"))))
    submit, made = Service.submit, []

    def first_is_faster(self: Service, **options: Any) -> Any:
        if not made:
            made.append(None)
            made[0] = create(client, file=file, key="k")
            return submit(self, **options)
        if made[0] and options["models"] == ["poet-large"]:
            raise Unavailable("away")
        return submit(self, **options)

    monkeypatch.setattr(Service, "submit", first_is_faster)
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert client.post("/v1/batches", json=asked, headers={"Idempotency-Key": "k"}).status_code == 503
    assert ledger.runs.total() == 2 and counts(look(client, made[0].id)) == (2, 0, 0)


def test_lines_with_keys_that_no_database_stores_are_told(client: FlaskClient) -> None:
    found = create(client, line("a", **{"\x00": 1}), line("b", **{"\ud800": 1}), line("c") | {"\ud800": 1})
    assert found.status == "failed" and found.errors and found.errors.data
    assert [one.param for one in found.errors.data] == ["body.\ufffd", "body.\ufffd", "\ufffd"]
