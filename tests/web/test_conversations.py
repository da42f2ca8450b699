"""Conversations through the API: what is sent is stored, and later turns follow."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tasks.conversation import Message, Role
from tasks.ledger import Ledger
from tasks.ledger.records import Completion, Environment, Rendered
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind
from web import create_app

ALL = {RunKind.ARENA: 9, RunKind.BULK: 9}
SAID = [
    {"role": "system", "content": "简短"},
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "您好"},
    {"role": "user", "content": "再见"},
]


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def submitted(client: FlaskClient, body: Any) -> str:
    answer = client.post("/api/runs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"]) if answer.json else ""


def test_a_run_is_one_conversation(client: FlaskClient, ledger: Ledger) -> None:
    run = submitted(client, {"messages": SAID, "samples": 2.0, "title": "问候", "sampling": {"top_k": 2.0}})
    (prompt,) = ledger.runs.prompts(run)
    assert [message.to_dict() for message in prompt.messages] == SAID
    stored = ledger.runs.get(run)
    assert (stored.samples, stored.title, stored.sampling["top_k"]) == (2, "问候", 2)


def test_every_part_of_a_prompt_is_stored(client: FlaskClient, ledger: Ledger) -> None:
    checks = [{"type": "contains", "value": "巴黎", "nested": {"a": [1, 2.5, None, True]}}]
    whole = {
        "prompt": "{{city}}在哪里？",
        "category": "地理",
        "reference": "法国",
        "checks": checks,
        "tags": ["a", "b"],
        "variables": {"city": "巴黎"},
        "custom_id": "q-1",
    }
    later = {"prompt": "那里有什么？", "follows": 0}
    own = {"messages": SAID}
    run = submitted(client, {"prompts": [whole, later, own, "一行"], "system": "礼貌"})
    first, second, third, fourth = ledger.runs.prompts(run)
    assert (first.text, first.system, first.category, first.reference) == ("巴黎在哪里？", "礼貌", "地理", "法国")
    assert (list(first.checks), first.tags, first.custom_id) == (checks, ("a", "b"), "q-1")
    assert first.variables == {"city": "巴黎"}
    assert (second.follows, second.system) == (0, None)
    assert third.system == "简短" and third.history == (
        Message(Role.USER, "你好"),
        Message(Role.ASSISTANT, "您好"),
    )
    assert (fourth.text, fourth.system) == ("一行", "礼貌")


def test_a_later_turn_follows(client: FlaskClient, ledger: Ledger) -> None:
    run = submitted(client, {"prompts": ["一"], "models": ["poet-small"]})
    followed = client.post(f"/api/runs/{run}/prompts", json={"follows": 0.0, "prompt": "二"})
    assert followed.status_code == 202 and followed.json == {"id": run, "url": f"/runs/{run}", "idx": 1}
    assert ledger.runs.prompts(run)[1].follows == 0
    assert client.get(f"/api/runs/{run}").json["counts"]["total"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "二"}, "follows"),
        ({"follows": 7, "prompt": "二"}, "follows"),
        ({"follows": -1, "prompt": "二"}, "follows"),
        ({"follows": 0, "prompt": " "}, "prompt"),
        ({"follows": 0, "prompt": "二", "system": "x"}, "system"),
        ({"follows": 0, "messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"follows": 0, "prompt": "二", "models": []}, "models"),
    ],
)
def test_a_wrong_later_turn_adds_nothing(client: FlaskClient, ledger: Ledger, body: Any, field: str) -> None:
    run = submitted(client, {"prompts": ["一"]})
    refused = client.post(f"/api/runs/{run}/prompts", json=body)
    assert refused.status_code == 422 and refused.json and refused.json["error"]["field"] == field
    assert ledger.runs.get(run).prompts == 1
    assert client.post("/api/runs/none/prompts", json={"follows": 0, "prompt": "x"}).status_code == 404


def test_a_prompt_can_be_seen_as_the_model_saw_it(client: FlaskClient, ledger: Ledger) -> None:
    run = submitted(client, {"prompts": ["一"], "models": ["poet-small"]})
    of_prompt = f"/api/runs/{run}/rendered?model=poet-small&idx=0&sample=0"
    assert client.get(of_prompt).status_code == 404
    claim = ledger.chunks.claim(ledger.outbox.dispatch("poet-small", ALL)[0].chunk, "w")
    assert claim
    row = Completion(run, "poet-small", 0, 0, "答", FinishReason.STOP)
    assert ledger.chunks.write(claim, [row], Environment("e", {}), rendered={(0, 0): Rendered("<s>一", (1, 7))})
    assert client.get(of_prompt).json == {"text": "<s>一", "tokens": [1, 7]}
    for wrong in ("?idx=0", "?model=poet-small&idx=x", "?model=poet-small&idx=0&smaple=1"):
        assert client.get(f"/api/runs/{run}/rendered{wrong}").status_code == 422


def test_what_is_neither_text_nor_object_is_told_that_both_are_taken(client: FlaskClient) -> None:
    answer = client.post("/api/runs", json={"prompts": ["a", 1]})
    assert answer.status_code == 422 and answer.json
    assert answer.json["error"]["message"] == "prompts.1 must be a text, or an object with prompt."
