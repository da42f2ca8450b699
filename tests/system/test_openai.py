"""OpenAI's own client, unmodified, against a whole system."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import Batch
from openai.types.chat import ChatCompletion

from tests.system.conftest import Running

POEM: Any = {
    "model": "poet-small",
    "messages": [{"role": "user", "content": "春江花月夜"}],
    "seed": 7,
    "max_tokens": 24,
}


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def batch_of(client: openai.OpenAI, *models: str) -> Batch:
    """A batch of a line a model, which has ended."""
    lines = [
        {"custom_id": f"行 {i}", "method": "POST", "url": "/v1/chat/completions", "body": POEM | {"model": model}}
        for i, model in enumerate(models)
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("lines.jsonl", data), purpose="batch")
    assert client.files.content(file.id).read() == data
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"of": "test"},
    )
    deadline = time.monotonic() + 60
    while batch.status in ("in_progress", "finalizing"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["poet-large", "poet-small"]
    assert client.models.retrieve("poet-large").object == "model"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4")
    assert refused.value.code == "model_not_found"


def test_the_same_seed_gives_the_same_answer_whole_or_streamed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**POEM)
    (choice,) = answer.choices
    assert choice.finish_reason == "length" and choice.message.role == "assistant" and choice.message.content
    assert answer.usage and answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert client.chat.completions.create(**POEM).choices == answer.choices
    assert client.chat.completions.create(**POEM | {"seed": 8}).choices != answer.choices
    chunks = list(client.chat.completions.create(**POEM, stream=True, stream_options={"include_usage": True}))
    *told, last = chunks
    deltas = [chunk.choices[0] for chunk in told]
    assert "".join(delta.delta.content or "" for delta in deltas) == choice.message.content
    assert [delta.delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert last.choices == [] and last.usage == answer.usage and all(chunk.usage is None for chunk in told)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_several_answers_and_where_they_stop(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**POEM, n=2)
    first, second = (choice.message.content or "" for choice in answer.choices)
    assert first != second and answer.usage and answer.usage.completion_tokens == 48
    mark = first[3]
    stopped = client.chat.completions.create(**POEM, stop=mark).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == first.partition(mark)[0]


def test_completions_of_several_prompts(client: openai.OpenAI) -> None:
    asked: Any = {"model": "poet-large", "prompt": ["山", "水"], "n": 2, "max_tokens": 6, "seed": 1}
    answer = client.completions.create(**asked)
    texts = [choice.text for choice in answer.choices]
    assert len(texts) == 4 and all(texts) and answer.usage and answer.usage.completion_tokens == 24
    streamed = [""] * 4
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts


def test_a_batch_goes_to_the_model_of_each_line_or_to_all(client: openai.OpenAI) -> None:
    batch = batch_of(client, "all", "poet-small")
    assert batch.status == "completed" and batch.metadata == {"of": "test"} and batch.error_file_id is None
    assert batch.request_counts and (batch.request_counts.total, batch.request_counts.completed) == (3, 3)
    assert batch.completed_at and batch.completed_at >= batch.created_at
    assert batch.id in [found.id for found in client.batches.list()]
    assert batch.output_file_id
    content = client.files.content(batch.output_file_id)
    lines = [json.loads(line) for line in content.text.splitlines()]
    bodies = [ChatCompletion.model_validate(line["response"]["body"]) for line in lines]
    assert sorted((line["custom_id"], body.model) for line, body in zip(lines, bodies, strict=True)) == [
        ("行 0", "poet-large"),
        ("行 0", "poet-small"),
        ("行 1", "poet-small"),
    ]
    assert all(body.usage and body.usage.completion_tokens == 24 for body in bodies)
    assert client.files.retrieve(batch.output_file_id).bytes == len(content.read())
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.input_file_id)


def test_a_batch_whose_file_is_wrong_says_each_line(client: openai.OpenAI) -> None:
    batch = batch_of(client, "poet-small", "gpt-4", "gpt-5")
    assert batch.status == "failed" and batch.errors and batch.errors.data
    assert [(problem.line, problem.code, problem.param) for problem in batch.errors.data] == [
        (3, "model_not_found", "body.model"),
        (5, "model_not_found", "body.model"),
    ]


def test_a_file_that_is_too_large_is_refused_to_a_client_that_still_sends_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.files.create(file=("large.jsonl", b"x" * (202 * 2**20)), purpose="batch")
    assert refused.value.status_code == 413 and "split it" in refused.value.message
