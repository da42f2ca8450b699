"""The OpenAPI document against the running app: every documented field is answered, and nothing else."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from tasks.ledger import Ledger
from tasks.queue.live import Live, LiveEvent
from tasks.registry import entry_of
from tasks.registry.entry import KINDS
from tasks.settings import Settings as ProcessSettings
from tasks.states import FinishReason, LoadStage, WaitReason, WorkerState
from tasks.version import VERSION
from tests.web import filled
from web import create_app
from web.schema.answers import Settings
from web.schema.operations import EVENTS, OPERATIONS, Operation

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(settings: ProcessSettings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/openapi.json").json
    assert answer
    return answer


def schema_of(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The schema of a documented answer, with the components that it refers to."""
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema | {"components": document["components"]}


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def undocumented(document: dict[str, Any], schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """Fields of an answer that are not documented, and documented ones that it lacks."""
    schema = resolved(document, schema)
    kinds = [resolved(document, one) for one in schema.get("anyOf", [schema])]
    if isinstance(value, list):
        items = next(kind["items"] for kind in kinds if kind.get("type") == "array")
        for item in value:
            yield from undocumented(document, items, item, f"{path}[]")
    elif isinstance(value, dict):
        kind = next(kind for kind in kinds if kind.get("type") == "object")
        free = kind.get("additionalProperties")
        if free:
            for name, item in value.items() if isinstance(free, dict) else ():
                yield from undocumented(document, free, item, f"{path}.{name}")
            return
        for name in set(kind["properties"]) ^ set(value):
            yield f"{path}.{name}"
        for name in set(kind["properties"]) & set(value):
            yield from undocumented(document, kind["properties"][name], value[name], f"{path}.{name}")


def check(document: dict[str, Any], path: str, method: str, answer: Any) -> Any:
    """The answer, after it was compared with the document."""
    documented = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in documented, f"{method} {path} answered {answer.status_code}: {answer.text}"
    described = documented[str(answer.status_code)]
    if "content" not in described:
        assert not answer.data
        return None
    schema = schema_of(document, described)
    assert list(undocumented(document, schema, answer.json)) == []
    assert list(Draft202012Validator(schema).iter_errors(answer.json)) == []
    return answer.json


def test_the_document_is_valid_and_has_the_version_of_the_project(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0" and document["info"]["version"] == VERSION
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


def test_every_answer_has_exactly_the_documented_fields(
    client: FlaskClient, document: dict[str, Any], settings: ProcessSettings, ledger: Ledger
) -> None:
    run = filled.conversation(ledger, settings, *filled.MODELS, "gone")
    filled.answer(ledger)
    filled.register(ledger, "poet-small", facts={"parameters": 1}, identity="i", rss=5, speed=1.0, load_seconds=2.0)
    stage = {"stage": LoadStage.READING, "stage_share": 0.5}
    filled.register(ledger, "poet-large", WorkerState.LOADING, **stage)
    described = check(document, "/api/runs/{id}", "get", client.get(f"/api/runs/{run}"))
    waits = {model["name"]: model["waits"] for model in described["models"]}
    assert waits["poet-small"] is None and waits["gone"]["reason"] == WaitReason.REMOVED and waits["gone"]["blocked"]
    assert (waits["poet-large"]["stage"], waits["poet-large"]["share"]) == ("reading", 0.5)
    assert described["models"][0]["settings"]["temperature"] == 0.5
    page = check(document, "/api/runs/{id}/completions", "get", client.get(f"/api/runs/{run}/completions?limit=1"))
    (row,) = page["completions"]
    assert row["finish_reason"] == FinishReason.STOP and row["thinking_tokens"] == 4 and not row["is_empty"]
    rest = client.get(f"/api/runs/{run}/completions?after={page['next']}")
    (empty,) = check(document, "/api/runs/{id}/completions", "get", rest)["completions"]
    assert empty["is_empty"] and empty["idx"] == 1
    of_prompt = client.get(f"/api/runs/{run}/rendered?model=poet-small&idx=0")
    assert check(document, "/api/runs/{id}/rendered", "get", of_prompt)["tokens"] == [1, 2, 3]
    models = {
        model["name"]: model for model in check(document, "/api/models", "get", client.get("/api/models"))["models"]
    }
    assert {name: model["state"] for name, model in models.items()} == {
        "poet-small": "ready",
        "poet-large": "loading",
        "gone": "removed",
    }
    workers = check(document, "/api/workers", "get", client.get("/api/workers"))["workers"]
    assert {worker["state"] for worker in workers} == {"ready", "loading"}
    check(document, "/healthz", "get", client.get("/healthz"))
    assert check(document, "/readyz", "get", client.get("/readyz"))["error"]["code"] == "unavailable"


def test_every_event_has_exactly_the_documented_fields(
    document: dict[str, Any], redis_settings: ProcessSettings, ledger: Ledger
) -> None:
    run = filled.conversation(ledger, redis_settings)
    filled.answer(ledger)
    ledger.control.cancel(run)
    Live(redis_settings.redis_url).publish(run, [LiveEvent("", "poet-small", 0, 0, 1, "a", "b")])
    client = create_app(redis_settings).test_client()
    assert check(document, "/readyz", "get", client.get("/readyz")) == {"status": "ready"}
    told = client.get(f"/api/runs/{run}/events").text
    seen = set()
    for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", told):
        seen.add(name)
        schema = {"$ref": f"#/components/schemas/{EVENTS[name].__name__}", "components": document["components"]}
        assert list(undocumented(document, schema, json.loads(data))) == []
        assert list(Draft202012Validator(schema).iter_errors(json.loads(data))) == []
    assert seen == EVENTS.keys()


def test_every_way_to_change_something_answers_as_documented(client: FlaskClient, document: dict[str, Any]) -> None:
    made = check(document, "/api/runs", "post", client.post("/api/runs", json={"prompts": ["一", "二"]}))
    headers = {"Content-Type": "application/octet-stream"}
    files = [b"id,answer\n1,x\n2,\n", "id,问题\n1,一\n2,二\n".encode(), b"PK"]
    sent = [client.post("/api/uploads?name=f.csv", data=content, headers=headers) for content in files]
    answers, prompts, broken = (check(document, "/api/uploads", "post", one) for one in sent)
    assert prompts["preview"]["prompts"] == 2 and broken["preview"] is None and broken["problem"]
    run = made["id"]

    def post(path: str, body: Any) -> Any:
        sent = client.post(path.format(id=run, model="poet-small", upload_id=prompts["id"]), json=body)
        return check(document, path, "post", sent)

    assert post("/api/uploads/{upload_id}/preview", {"format": "lines"})["preview"]["prompts"] == 3
    asked = {"prompts": 2, "lengths": {"2": 2}, "models": ["poet-small"]}
    assert post("/api/estimate", asked)["models"][0]["reason"]
    other = check(document, "/api/runs", "post", client.post("/api/runs", json={"upload": prompts["id"]}))["id"]
    path = f"/api/runs/{other}"
    pages = {kind: client.get(f"{path}/{kind}") for kind in ("prompts", "scores")}
    page = check(document, "/api/runs/{id}/prompts", "get", pages["prompts"])
    assert [one["custom_id"] for one in page["prompts"]] == ["1", "2"] and page["next"] is None
    check(document, "/api/runs/{id}/scores", "get", pages["scores"])
    grow = {"models": {"models": ["poet-small"]}, "samples": {"samples": 1}, "merge": {"run": run}}
    grown = {kind: client.post(f"{path}/{kind}", json=body) for kind, body in grow.items()}
    assert check(document, "/api/runs/{id}/samples", "post", grown["samples"])["samples"] == 2
    for kind in ("models", "merge"):  # all models are there already; other prompts
        assert check(document, f"/api/runs/{{id}}/{kind}", "post", grown[kind])["error"]["code"] == "conflict"
    added = client.post(f"{path}/prompts", json={"prompts": ["三"]})
    assert check(document, "/api/runs/{id}/prompts", "post", added)["idx"] == 2
    imported = client.post(f"{path}/answers", json={"upload": answers["id"], "label": "gpt"})
    taken = check(document, "/api/runs/{id}/answers", "post", imported)
    assert (taken["columns"], taken["taken"], taken["problems"][0]["line"]) == (["gpt (imported)"], 1, 3)
    listed = check(document, "/api/runs", "get", client.get("/api/runs?search=&limit=1"))
    assert listed["next"] and listed["runs"][0]["id"] == other
    sets = check(document, "/api/sets", "get", client.get("/api/sets"))["sets"]
    named = client.put(f"/api/sets/{sets[0]['digest']}", json={"name": "题"})
    assert check(document, "/api/sets/{digest}", "put", named) is None
    gone = client.delete(f"/api/uploads/{answers['id']}")
    assert check(document, "/api/uploads/{upload_id}", "delete", gone) is None

    assert post("/api/runs/{id}/prompts", {"follows": 1, "prompt": "三"})["idx"] == 2
    assert post("/api/runs/{id}/priority", {"priority": 1.0})["priority"] == 1
    assert post("/api/runs/{id}/pause", {})["models"][0]["waits"]["reason"] == "paused"
    assert post("/api/runs/{id}/resume", {})["models"][0]["waits"]["reason"] == "no_worker"
    failed = {model["name"]: model for model in post("/api/runs/{id}/models/{model}/fail", {})["models"]}
    assert failed["poet-small"]["counts"]["failed"] == 3 and failed["poet-large"]["counts"]["pending"] == 3
    post("/api/runs/{id}/retry", {})
    assert post("/api/runs/{id}/cancel", {})["state"] == "cancelled"
    assert post("/api/runs/{id}/cancel", {})
    assert post("/api/runs/{id}/resume", {})["error"]["code"] == "conflict"
    check(document, "/api/runs/{id}", "delete", client.delete(f"/api/runs/{run}"))
    assert check(document, "/api/runs/{id}", "get", client.get(f"/api/runs/{run}"))["error"]["field"] is None


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_mistake_is_answered_as_documented(
    client: FlaskClient, document: dict[str, Any], operation: Operation
) -> None:
    method = operation.method.lower()
    path = operation.path.format(id="none", model="none", upload_id="none", digest="none")
    mistakes: list[dict[str, Any]] = [{}, {"query_string": {"nonsense": "1"}}]
    if operation.body or operation.file:
        kinds = ("text/plain", "application/json", "application/octet-stream")
        mistakes += [{"data": data, "content_type": kind} for data in (b"{", b"[]", b'{"x": 1}') for kind in kinds]
    for mistake in mistakes:
        answer = client.open(path, method=method.upper(), **mistake)
        assert answer.status_code != 500
        if operation.answer or answer.status_code >= 400:
            check(document, operation.path, method, answer)
    refused = client.open(path, method="TRACE")
    assert refused.status_code == 405 and operation.method in refused.headers["Allow"].replace(" ", "").split(",")
    check(document, operation.path, method, refused)


def test_the_settings_of_every_backend_are_documented() -> None:
    entries: list[dict[str, Any]] = [{"backend": "local", "source": "a"}, {"backend": "openai", "base_url": "http://a"}]
    assert {entry["backend"] for entry in entries} == KINDS.keys()
    for entry in entries:
        shown = Settings(**entry_of(entry | {"name": "a"}).effective({"stop": ["b"]}))
        assert (shown.backend, shown.stop) == (entry["backend"], ["b"])


def test_an_id_that_no_database_stores_is_not_there(client: FlaskClient) -> None:
    for path in ("/api/runs/a%00b", "/api/runs/a%00b/events", "/runs/a%00b", "/report/%00"):
        assert client.get(path).status_code == 404
    assert client.get("/api/runs/none/completions?model=a%00b").status_code in (404, 422)


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    answer = client.post("/api/runs", data=b" " * (20 * 2**20 + 1), headers=JSON)
    assert answer.status_code == 413 and answer.json and answer.json["error"]["code"]
