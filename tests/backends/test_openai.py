"""The backend `openai` against a server that behaves as it is told."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tasks.conversation import Message, Role
from tasks.errors import ModelError
from tasks.registry import OpenAIModel
from tasks.settings import ROOT
from tasks.states import FinishReason
from tests.backends.conftest import Opened, Opener, joined
from tests.backends.told_server import (
    MODEL,
    ToldServer,
    breaks_off,
    chat,
    event,
    hangs,
    streams,
    whole,
)
from worker.backends.openai import backend as backend_module
from worker.backends.protocol import Failure, Increment


def test_an_answer_comes_as_a_stream_with_its_times_and_tokens(told: ToldServer, model: Opened) -> None:
    told.does(streams(event(chat("Hel")), event(chat("lo")), whole("!"), pause=0.2))
    before = time.monotonic()
    answer, increments = model.ask()
    assert (answer.text, answer.finish_reason, answer.error) == ("Hello!", FinishReason.STOP, None)
    assert [one.text for one in increments] == ["Hel", "lo", "!"]
    assert (answer.prompt_tokens, answer.output_tokens, answer.retries) == (7, 3, 0)
    assert answer.admitted and answer.first_token and answer.last_token
    assert before <= answer.admitted <= answer.first_token <= answer.last_token - 0.1
    assert answer.answer_started is None and answer.thinking_tokens is None


def test_what_is_asked(told: ToldServer, model: Opened) -> None:
    told.lists(MODEL)
    sampling = {"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.1}
    said = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "你好"))
    entry = model.entry.model_copy(update={"system": "Be brief.", "thinking": False})
    model.ask(said, entry=entry, sampling=sampling | {"stop": ("x",), "seed": 2**31 + 5})
    asked = told.asked[-1]
    assert asked.path == "/v1/chat/completions" and "authorization" not in asked.headers
    assert asked.body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            *({"role": m.role, "content": m.content} for m in said),
        ],
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "repetition_penalty": 1.1,
        "stop": ["x"],
        "seed": 5,
    }


def test_what_is_off_is_not_sent_but_to_servers_with_defaults_of_their_own(told: ToldServer, opener: Opener) -> None:
    opener(base_url=told.url).ask()
    assert not {"top_k", "repetition_penalty", "stop", "chat_template_kwargs"} & told.asked[-1].body.keys()
    told.lists(MODEL, owned_by="llamacpp")
    cpp = opener(base_url=told.url)
    cpp.ask(sampling={"temperature": 0.0})
    assert told.asked[-1].body["top_k"] == 1
    cpp.ask(sampling={"temperature": 1.0})
    assert {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}.items() <= told.asked[-1].body.items()
    cpp.ask(sampling={"repetition_penalty": 1.2})
    assert {"repeat_penalty": 1.2, "repeat_last_n": 32_768}.items() <= told.asked[-1].body.items()


@pytest.mark.parametrize(("template", "prompt"), [(None, "a\n\nb\n\nc"), ("Q: {prompt}\nA:", "Q: a\n\nb\n\nc\nA:")])
def test_plain_completions(told: ToldServer, opener: Opener, template: str | None, prompt: str) -> None:
    model = opener(base_url=told.url, api="completions", template=template)
    said = {"choices": [{"text": "An answer", "finish_reason": "length"}]}
    told.does(streams(event(said), event("[DONE]")))
    answer, _ = model.ask((Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "c")))
    assert (answer.text, answer.finish_reason) == ("An answer", FinishReason.LENGTH)
    assert told.asked[-1].path == "/v1/completions" and told.asked[-1].body["prompt"] == prompt
    refused, _ = model.ask((Message(Role.SYSTEM, "s"), Message(Role.USER, "c")))
    assert refused.finish_reason is FinishReason.ERROR and "api = 'chat'" in (refused.error or "")


def test_a_setting_that_no_server_knows_is_an_error(model: Opened) -> None:
    answer, _ = model.ask(sampling={"no_repeat_ngram": 3})
    assert answer.finish_reason is FinishReason.ERROR and "no_repeat_ngram" in (answer.error or "")


@pytest.mark.parametrize(
    ("stream", "text", "thinking"),
    [
        (
            [chat(reasoning_content="Let me"), chat(reasoning_content=" see."), chat("\n\nYes"), chat(".")],
            "Yes.",
            "Let me see.",
        ),
        ([chat(reasoning="Hm."), chat("Yes.")], "Yes.", "Hm."),
        ([chat("<th"), chat("ink>Hm"), chat(".</thi"), chat("nk>\n\nYes.")], "Yes.", "Hm."),
        ([chat("I think <b>"), chat(" so")], "I think <b> so", ""),
        ([chat("<think>for ever")], "", "for ever"),
    ],
)
def test_thinking_is_kept_apart(
    told: ToldServer, model: Opened, stream: list[dict[str, Any]], text: str, thinking: str
) -> None:
    details = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    told.does(streams(*map(event, stream), whole(usage=details)))
    answer, increments = model.ask()
    assert (answer.text, answer.thinking) == (text, thinking) == joined(increments)
    assert answer.thinking_tokens == (4 if thinking else None) and answer.output_tokens == 9
    assert (answer.answer_started is not None) == bool(text and thinking)


def test_characters_are_never_halved(told: ToldServer, model: Opened) -> None:
    stream = event(chat("好😀")) + event('{"choices":[{"delta":{"content":"\\ud83d"}}]}')
    stream += event('{"choices":[{"delta":{"content":"\\ude00!"}}]}') + whole()
    told.does(streams(*(stream[i : i + 1] for i in range(len(stream)))))
    answer, increments = model.ask()
    assert answer.text == "好😀😀!" == joined(increments)[0]
    assert [one.text for one in increments] == ["好😀", "😀!"]


@pytest.mark.parametrize("cuts", [["One two", " STOP three"], ["One two ST", "OP"], list("One two STOPS")])
def test_a_stop_string_ends_an_answer_wherever_it_is_cut(told: ToldServer, model: Opened, cuts: list[str]) -> None:
    told.does(hangs(*(event(chat(cut)) for cut in cuts), seconds=10.0))
    answer, increments = model.ask(sampling={"stop": ("a", "b", "c", "d", " STOP")})
    assert (answer.text, answer.finish_reason) == ("One two", FinishReason.STOP_STRING)
    assert joined(increments)[0] == "One two" and told.hung_up.wait(5)
    assert told.asked[-1].body["stop"] == ["a", "b", "c", "d"]


def test_stop_strings_that_the_server_found(told: ToldServer, model: Opened) -> None:
    end = {"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": "X"}]}
    told.does(streams(event(chat("a ST")), event(end), event("[DONE]")))
    answer, _ = model.ask(sampling={"stop": ("STOP",)})
    assert (answer.text, answer.finish_reason) == ("a ST", FinishReason.STOP_STRING)


@pytest.mark.parametrize(
    ("reason", "finish", "error"),
    [
        ("stop", FinishReason.STOP, None),
        ("length", FinishReason.LENGTH, None),
        ("content_filter", FinishReason.ERROR, "content filter"),
        ("tool_calls", FinishReason.ERROR, "tool_calls"),
    ],
)
def test_why_an_answer_ended(
    told: ToldServer, model: Opened, reason: str, finish: FinishReason, error: str | None
) -> None:
    told.does(streams(whole("partial", reason=reason)))
    answer, _ = model.ask()
    assert (answer.text, answer.finish_reason) == ("partial", finish)
    assert (error in (answer.error or "")) if error else answer.error is None


def test_an_empty_answer_is_an_answer(told: ToldServer, model: Opened) -> None:
    told.does(streams(whole(usage={"prompt_tokens": 5, "completion_tokens": 0})))
    answer, increments = model.ask()
    assert (answer.text, answer.finish_reason, answer.output_tokens) == ("", FinishReason.STOP, 0)
    assert not increments and answer.first_token is None


def test_without_usage_tokens_are_unknown_or_counted(told: ToldServer, opener: Opener, tmp_path: Path) -> None:
    told.otherwise = streams(whole("one two", " three", usage=None))
    answer, _ = opener(base_url=told.url).ask()
    assert answer.prompt_tokens is None and answer.output_tokens is None
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    answer, _ = opener(base_url=told.url, tokenizer=str(tmp_path)).ask()
    assert answer.output_tokens == 3
    assert answer.prompt_tokens is None, "what the server's chat template adds is unknown"
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        opener(base_url=told.url, tokenizer=str(tmp_path))


def test_deadline_and_cancel_keep_the_partial_text_and_close_the_connection(told: ToldServer, opener: Opener) -> None:
    model = opener(base_url=told.url, timeout=30)
    told.does(hangs(event(chat("Par")), event(chat("tial")), seconds=10))
    answer, _ = model.ask(deadline=time.monotonic() + 0.3)
    assert (answer.text, answer.finish_reason) == ("Partial", FinishReason.DEADLINE) and answer.error
    assert told.hung_up.wait(5)
    told.hung_up.clear()
    told.does(hangs(event(chat("Par")), event(chat("tial")), seconds=10))
    model.submit()
    while not isinstance(first := model.events.get(timeout=5), Increment) or first.text != "tial":
        continue
    model.backend.cancel("a")
    answer, _ = model.until_end()
    assert (answer.text, answer.finish_reason, answer.error) == ("Partial", FinishReason.CANCELLED, None)
    assert told.hung_up.wait(5) and model.backend.active == 0
    model.backend.cancel("unknown")


def test_cancel_of_what_has_not_begun(told: ToldServer, opener: Opener) -> None:
    model = opener(base_url=told.url, concurrency=1)
    told.does(streams(event(chat("x")), whole(), pause=0.2))
    for id in "abc":
        model.submit(id=id)
        if id != "a":
            model.backend.cancel(id)
    ends = {end.generation_id: end for end, _ in (model.until_end() for _ in range(3))}
    assert ends["b"].finish_reason is ends["c"].finish_reason is FinishReason.CANCELLED  # type: ignore[union-attr]
    assert ends["a"].text == "x" and ends["b"].admitted is None  # type: ignore[union-attr]


def test_so_many_at_once_and_the_urgent_first(told: ToldServer, opener: Opener) -> None:
    model = opener(base_url=told.url, concurrency=2)
    told.otherwise = streams(event(chat("x")), whole(), pause=0.15)
    for id in "abcde":
        model.submit(id, id=id, priority=1)
    model.submit("urgent", id="urgent", priority=0)
    for _ in range(6):
        model.until_end()
    order = [asked.body["messages"][0]["content"] for asked in told.asked]
    assert set(order[:2]) == {"a", "b"} and order[2] == "urgent"


def test_a_hundred_at_once(told: ToldServer, opener: Opener) -> None:
    model = opener(base_url=told.url, concurrency=16)
    for number in range(100):
        told.does(*([breaks_off(event(chat("x")))] if number % 7 == 0 else []))
        model.submit(id=str(number), streams=False)
    ends = [model.until_end()[0] for _ in range(100)]
    assert {end.generation_id for end in ends} == set(map(str, range(100)))
    assert all(not isinstance(end, Failure) and end.text == "Hello, world" for end in ends)
    assert model.backend.active == 0 and model.backend.failures == 0


def test_progress_goes_on_while_a_server_is_slow_and_not_when_it_hangs(
    told: ToldServer, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "TICK_SECONDS", 0.1)
    model = opener(base_url=told.url, timeout=1.2)
    told.otherwise = hangs(seconds=30)
    model.submit()
    seen = []
    for _ in range(9):
        seen.append(model.backend.progress)
        time.sleep(0.3)
    assert seen[3] > seen[1] > seen[0], "within its time to send a byte"
    assert seen[8] == seen[6], "afterwards"
    model.backend.cancel("a")
    model.until_end()
    assert model.backend.failures == 0


def test_times_are_those_of_the_try_that_answered(told: ToldServer, model: Opened) -> None:
    told.does(hangs(seconds=10))
    started = time.monotonic()
    answer, _ = model.ask()
    assert answer.retries == 1 and answer.admitted and answer.admitted - started >= 0.9


def test_closing_ends_what_runs(told: ToldServer, opener: Opener) -> None:
    model = opener(base_url=told.url)
    told.does(hangs(event(chat("x")), seconds=10))
    model.submit()
    model.events.get(timeout=5)
    model.backend.close()
    end, _ = model.until_end()
    assert not isinstance(end, Failure) and end.finish_reason is FinishReason.CANCELLED
    model.submit(id="late")
    end, _ = model.until_end()
    assert isinstance(end, Failure) and "closed" in end.error
    assert not [thread for thread in threading.enumerate() if thread.name == MODEL]


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys, worker.__main__, worker.backends.openai;"
        "print([m for m in ('torch', 'transformers', 'flask') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_an_entry_survives_its_snapshot(told: ToldServer) -> None:
    entry = OpenAIModel(name="a", backend="openai", base_url=told.url, key_env="K", price={"input": 1})
    assert OpenAIModel.model_validate(entry.snapshot()) == entry
