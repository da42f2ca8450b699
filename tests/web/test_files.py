"""Files of prompts on their way in: kept, looked at, read as a person says, and queued whole or not at all."""

import csv
import http.client
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.serving import make_server

from tasks.ledger import Ledger
from tasks.ledger.tables import chunk, prompt, run, upload
from tasks.settings import Settings
from tasks.states import RunKind
from web import create_app
from web.app import MAX_FILE_BYTES

FILE = {"Content-Type": "application/octet-stream"}
RECORDS = [(f"q{i}", ("诗", "史")[i % 2], f"第{i}题；请写：\n一行\n又一行", f"答{i}") for i in range(500)]


def table(encoding: str = "gb18030") -> bytes:
    """500 records as Chinese Excel saves them with semicolons: line ends within cells, GBK."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    writer.writerow(["编号", "类别", "问题", "参考答案"])
    writer.writerows(RECORDS)
    return out.getvalue().encode(encoding)


@pytest.fixture
def app(settings: Settings) -> Flask:
    return create_app(settings)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()


def rows(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        return sum(connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (run, prompt, chunk))


def uploaded(client: FlaskClient, content: bytes, name: str) -> Any:
    answer = client.post(f"/api/uploads?name={quote(name)}", data=content, headers=FILE)
    assert answer.status_code == 201, answer.text
    return answer.json


def token(page: str) -> str:
    return re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]


def stored(ledger: Ledger, run_id: str) -> list[tuple[Any, ...]]:
    found = ledger.runs.prompts(run_id, 0, 1000)
    return [(one.custom_id, one.category, one.text, one.reference) for one in found]


def test_a_table_from_excel_gives_its_records_through_the_api(client: FlaskClient, ledger: Ledger) -> None:
    answer = uploaded(client, table(), "题目.csv")
    seen = answer["preview"]
    assert (seen["prompts"], seen["problem_count"], seen["problems"]) == (500, 0, [])
    assert seen["reading"]["encoding"] == "gb18030" and seen["reading"]["separator"] == ";"
    assert seen["columns"] == ["编号", "类别", "问题", "参考答案"]
    assert seen["first"][0]["messages"] == [{"role": "user", "content": RECORDS[0][2]}]
    sent = client.post("/api/runs", json={"upload": answer["id"], "models": ["poet-small"], "set_name": "题"})
    assert sent.status_code == 202 and sent.json
    assert stored(ledger, sent.json["id"]) == RECORDS
    made = ledger.runs.get(sent.json["id"])
    assert (made.kind, made.prompts, made.set_name) == (RunKind.BULK, 500, "题")


def test_a_table_from_excel_gives_its_records_through_the_pages(client: FlaskClient, ledger: Ledger) -> None:
    page = client.get("/batches").text
    form = {"file": (io.BytesIO(table()), "题目.csv"), "csrf_token": token(page)}
    looked = client.post("/batches", data=form)
    assert looked.status_code == 303 and ledger.runs.total() == 0
    preview = client.get(looked.location).text
    assert "500" in re.findall(r'id="found">(.*?)</p>', preview)[0] and "第0题；请写" in preview
    reading = re.findall(r'name="reading" value="([^"]+)"', preview)[0].replace("&#34;", '"').replace("&quot;", '"')
    asked = {"csrf_token": token(preview), "reading": reading, "models": "poet-small", "temperature": "0.2"}
    wrong = client.post(looked.location, data=asked | {"samples": "0"})
    assert wrong.status_code == 422 and "samples" in wrong.text and ledger.runs.total() == 0
    sent = client.post(looked.location, data=asked | {"samples": "2", "deadline": "9", "title": "春题"})
    assert sent.status_code == 303
    made = ledger.runs.get(sent.location.rpartition("/")[2])
    assert (made.title, made.samples, made.deadline, made.sampling["temperature"]) == ("春题", 2, 9.0, 0.2)
    assert stored(ledger, made.id) == RECORDS


def test_a_person_overrides_every_guess(client: FlaskClient, ledger: Ledger) -> None:
    answer = uploaded(client, "甲,乙\n一,二\n".encode(), "x.csv")
    seen = answer["preview"]
    assert seen["prompts"] == 0 and "甲" in seen["problems"][0]["reason"]
    path = f"/api/uploads/{answer['id']}/preview"
    lines = client.post(path, json={"format": "lines"}).json
    assert lines and [one["messages"][0]["content"] for one in lines["preview"]["first"]] == ["甲,乙", "一,二"]
    reading = {"columns": {"prompt": "乙"}, "template": "{{甲}}+{{乙}}"}
    shown = client.post(path, json=reading).json
    assert shown and shown["preview"]["first"][0]["messages"][0]["content"] == "一+二"
    sent = client.post("/api/runs", json={"upload": answer["id"], "reading": reading})
    assert sent.json and ledger.runs.prompts(sent.json["id"])[0].text == "一+二"
    assert client.post(path, json={"format": "docx"}).status_code == 422
    page = client.get("/batches").text
    form = {"file": (io.BytesIO("甲,乙\n一,二\n".encode()), "x.csv"), "csrf_token": token(page)}
    looked = client.post("/batches", data=form)
    assert "甲, 乙" in client.get(looked.location).text
    assert "一+二" in client.get(f"{looked.location}?column.prompt=乙&template={{{{甲}}}}%2B{{{{乙}}}}").text


def test_bad_lines_are_all_told_and_nothing_is_queued(client: FlaskClient, ledger: Ledger) -> None:
    content = "".join('{"prompt": "好"}\n' if i % 3 else "{\n" for i in range(3000)).encode()
    answer = uploaded(client, content, "bad.jsonl")
    seen = answer["preview"]
    assert (seen["prompts"], seen["problem_count"]) == (2000, 1000)
    assert [one["line"] for one in seen["problems"]] == list(range(1, 3001, 3))
    assert all(one["reason"] and one["remedy"] for one in seen["problems"])
    refused = client.post("/api/runs", json={"upload": answer["id"]})
    assert refused.status_code == 422 and refused.json and "line 1" in refused.json["error"]["message"]
    assert rows(ledger) == 0
    taken = client.post("/api/runs", json={"upload": answer["id"], "reading": {"leave_out": True}})
    assert taken.json and ledger.runs.get(taken.json["id"]).prompts == 2000


@pytest.mark.parametrize("content", [b"", b"\n \n", b"PK\x03\x04rest of a zip", b"[" * 10_000, b"\x1f\x8b\x08\x00gzip"])
def test_what_holds_no_prompts_is_refused_with_words(client: FlaskClient, ledger: Ledger, content: bytes) -> None:
    answer = client.post("/api/uploads?name=x.json", data=content, headers=FILE)
    told = answer.json
    assert told and answer.status_code in (201, 422)
    if answer.status_code == 201 and told["preview"]:
        assert told["preview"]["prompts"] == 0 and told["preview"]["problems"][0]["remedy"]
    else:
        assert len((told.get("error") or told["problem"])["message"]) > 20
    assert rows(ledger) == 0


def test_text_beside_a_file_is_asked_about(client: FlaskClient, ledger: Ledger) -> None:
    form = {"file": (io.BytesIO(b"from the file\n"), "f.txt"), "prompts": "typed", "csrf_token": ""}
    asked = client.post("/batches", data=form | {"csrf_token": token(client.get("/batches").text)})
    places = re.findall(r'href="(/batches/files/[^"]+)"', asked.text)
    assert asked.status_code == 200 and len(places) == 2 and ledger.runs.total() == 0
    shown = "".join(client.get(place).text for place in places)
    assert "from the file" in shown and "typed" in shown


def test_files_of_others_are_not_shown(app: Flask, client: FlaskClient) -> None:
    form = {"prompts": "secret", "csrf_token": token(client.get("/batches").text)}
    place = client.post("/batches", data=form).location
    assert client.get(place).status_code == 200
    assert app.test_client().get(place).status_code == 404
    assert client.post(f"/api/uploads/{place.rpartition('/')[2]}/preview", json={}).status_code == 404


def test_a_client_that_goes_away_leaves_nothing(url: str, ledger: Ledger, settings: Settings) -> None:
    folder = settings.data / "uploads"
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.putrequest("POST", "/api/uploads")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(10_000_000))
    connection.endheaders(b"a prompt of some length\n" * 100_000)
    until(lambda: folder.is_dir() and any(folder.iterdir()))
    connection.close()
    until(lambda: not any(folder.iterdir()))
    with ledger.database.read() as database:
        assert database.execute(select(func.count()).select_from(upload)).scalar_one() == 0


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_no_file_is_refused(client: FlaskClient, ledger: Ledger) -> None:
    assert client.post("/api/uploads", data=b"x", content_type="text/plain").status_code == 415
    too_long = {"CONTENT_LENGTH": str(MAX_FILE_BYTES + 1)}
    assert client.post("/api/uploads", data=b"x", headers=FILE, environ_overrides=too_long).status_code == 413
    assert client.post("/api/runs", json={"upload": "file-none"}).status_code == 404
    assert client.post("/api/runs", json={"upload": "file-none", "prompts": ["x"]}).status_code == 422
    assert rows(ledger) == 0


def test_a_key_makes_one_run_of_a_file(client: FlaskClient, ledger: Ledger) -> None:
    first, other = uploaded(client, b"a\nb\n", "x.txt")["id"], uploaded(client, b"a\nc\n", "x.txt")["id"]
    key = {"Idempotency-Key": "k"}
    made = client.post("/api/runs", json={"upload": first}, headers=key)
    assert made.status_code == 202 and client.post("/api/runs", json={"upload": first}, headers=key).json == made.json
    assert client.post("/api/runs", json={"upload": other}, headers=key).status_code == 409
    assert ledger.runs.total() == 1
    (made_of_it,) = ledger.runs.newest()  # however small a file is, it gives the same answers each time
    assert (made_of_it.kind, made_of_it.sampling["seed"]) == (RunKind.BULK, 0)
    assert client.delete(f"/api/uploads/{first}").status_code == 204
    assert client.delete(f"/api/uploads/{first}").status_code == 404
