"""What OpenAI's interface refuses, and how it says so."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from tasks.ledger import Ledger
from tasks.ledger.records import Completion
from tasks.openai.objects import problem_of_answer
from tasks.queue.live import LiveEvent
from tasks.settings import Settings
from tasks.states import FinishReason, RunState, WorkerState
from tests.web import filled
from web import create_app
from web.openai import answering
from web.openai.errors import AnswerFailed
from web.openai.streaming import Told
from worker.engine.admission import TOO_LONG

CHAT = {"model": "poet-small", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def refused(client: FlaskClient, status: int, path: str, **request: Any) -> dict[str, Any]:
    """The error of an answer, whose form is OpenAI's."""
    answer = client.open(path, method="POST", **request)
    assert answer.status_code == status, answer.text
    assert answer.json and answer.json.keys() == {"error"}
    error: dict[str, Any] = answer.json["error"]
    assert error.keys() == {"message", "type", "param", "code"} and error["message"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "unsupported_parameter"),
        ({"temperature": 9}, "temperature", "invalid"),
        ({"max_tokens": 0}, "max_tokens", "invalid"),
        ({"n": 17}, "n", "invalid"),
        ({"stop": [""]}, "stop", "invalid"),
        ({"temprature": 1}, "temprature", "invalid"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid"),
        ({"messages": []}, "messages", "invalid"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "invalid"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "invalid"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "invalid"),
        ({"messages": [{"role": "user", "content": "\x00"}]}, "messages.0.content", "invalid"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages", "invalid"),
        ({"messages": [{"role": "user", "content": "x" * 32_001}]}, "messages.0.content", "invalid"),
    ],
)
def test_a_parameter_that_cannot_be_heeded_is_named(
    client: FlaskClient, ledger: Ledger, changes: dict[str, Any], param: str, code: str
) -> None:
    error = refused(client, 400, "/v1/chat/completions", json=CHAT | changes)
    assert (error["param"], error["code"]) == (param, code)
    assert ledger.runs.total() == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [({"prompt": [1, 2]}, "prompt"), ({"prompt": []}, "prompt"), ({"echo": True}, "echo"), ({"best_of": 2}, "best_of")],
)
def test_a_completion_takes_text(client: FlaskClient, changes: dict[str, Any], param: str) -> None:
    asked = {"model": "poet-small", "prompt": "x"} | changes
    assert refused(client, 400, "/v1/completions", json=asked)["param"] == param


@pytest.mark.parametrize("name", ["gpt-4", "all", ""])
def test_a_model_must_be_in_the_registry(client: FlaskClient, name: str) -> None:
    status = 404 if name else 400
    assert refused(client, status, "/v1/chat/completions", json=CHAT | {"model": name})["param"] == "model"


def test_other_mistakes_have_the_same_form(client: FlaskClient) -> None:
    refused(client, 404, "/v1/embeddings", json={})
    refused(client, 405, "/v1/models")
    refused(client, 415, "/v1/chat/completions", data="x")
    assert (
        "messages" in refused(client, 400, "/v1/chat/completions", data="{", content_type="application/json")["message"]
    )
    refused(client, 415, "/v1/files", json={})
    form = {"data": {"purpose": "batch"}, "content_type": "multipart/form-data"}
    assert refused(client, 400, "/v1/files", **form)["param"] == "file"
    assert client.get("/v1/batches/batch_x").json["error"]["code"] == "not_found"  # type: ignore[index]


def test_what_asks_for_nothing_is_taken(client: FlaskClient, ledger: Ledger) -> None:
    idle = {"tools": [], "logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}, "top_p": None}
    ignored = {"user": "u", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": False}
    said = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": "d"},
    ]
    asked = CHAT | idle | ignored | {"messages": said, "max_completion_tokens": 5, "top_k": 3}
    refused(client, 503, "/v1/chat/completions", json=asked)  # nobody runs the model
    (run,) = ledger.runs.newest()
    (prompt,) = ledger.runs.prompts(run.id)
    assert (prompt.system, prompt.text) == ("be brief", "d")
    assert [message.content for message in prompt.history] == ["ab", "c"]
    assert {name: run.sampling[name] for name in ("max_new_tokens", "top_k")} == {"max_new_tokens": 5, "top_k": 3}


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_nobody_runs_is_an_error_at_once(client: FlaskClient, ledger: Ledger, stream: bool) -> None:
    error = refused(client, 503, "/v1/chat/completions", json=CHAT | {"stream": stream})
    assert error["code"] == "model_no_worker" and "./touchstone up" in error["message"]
    filled.register(ledger, "poet-small", WorkerState.FAILED, error="no memory")
    assert "no memory" in refused(client, 503, "/v1/chat/completions", json=CHAT)["message"]
    assert {run.state for run in ledger.runs.newest()} == {RunState.CANCELLED}


def test_too_many_at_once_are_told_to_come_back(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_places", threading.BoundedSemaphore(1))
    with answering.place():
        busy = client.post("/v1/chat/completions", json=CHAT)
    assert busy.status_code == 429 and busy.headers["Retry-After"]
    assert busy.json and busy.json["error"]["type"] == "rate_limit_error"
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 503  # the place is free again


def test_what_was_passed_on_is_repeated_by_no_attempt() -> None:
    told = Told()
    assert told.take(LiveEvent("1", "m", 0, 0, 1, "ab", "k")) == ("ab", "k")
    assert told.take(LiveEvent("2", "m", 0, 0, 2, "a", "k")) == ("", "")
    assert told.take(LiveEvent("3", "m", 0, 0, 2, "bc")) == ("c", "")
    assert told.end(ended("abcd", "k")) == ("d", "")
    with pytest.raises(AnswerFailed, match="began anew"):
        told.end(ended("abX", "k"))


def test_a_prompt_beyond_the_context_is_the_askers_mistake() -> None:
    failed = replace(ended("", ""), finish_reason=FinishReason.ERROR, error=TOO_LONG.format(300, 256))
    assert problem_of_answer([failed]) == ("context_length_exceeded", TOO_LONG.format(300, 256))
    assert problem_of_answer([replace(failed, error="The worker died.")]) == ("error", "The worker died.")


def test_a_part_that_is_no_text_is_shown_one_that_is(client: FlaskClient) -> None:
    said = [{"role": "user", "content": [{"type": "image_url"}]}]
    message = refused(client, 400, "/v1/chat/completions", json=CHAT | {"messages": said})["message"]
    assert message.endswith('such as {"type": "text", "text": "…"}.')


def ended(text: str, thinking: str) -> Completion:
    return Completion("r", "m", 0, 0, text, FinishReason.STOP, thinking=thinking)
