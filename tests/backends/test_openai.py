"""The backend `openai` against a server that behaves as it is told."""

import json
import socket
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
from tasks.states import FinishReason, LoadStage
from tests.backends.conftest import Opened, Opener
from tests.backends.told_server import (
    MODEL,
    ToldServer,
    breaks_off,
    chat,
    event,
    hangs,
    replies,
    streams,
    whole,
)
from worker.backends.openai import backend as backend_module
from worker.backends.openai import inspection
from worker.backends.protocol import Failure, Increment


def joined(increments: list[Increment]) -> tuple[str, str]:
    """What somebody sees who watches."""
    text = thinking = ""
    for one in increments:
        text, thinking = ("", "") if one.restarts else (text, thinking)
        text, thinking = text + one.text, thinking + one.thinking
    return text, thinking


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
    cpp.ask()
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


CUT = event(chat("Hal")), event(chat("f"))
TRANSIENT = {
    "500": replies(500, {"error": {"message": "out of memory"}}),
    "503": replies(503, b"<html>busy</html>"),
    "429": replies(429, {"error": "slow down"}, {"retry-after": "0"}),
    "cut": breaks_off(*CUT),
    "ended early": streams(*CUT),
    "no json": streams(CUT[0], b"data: {no\n\n"),
    "not utf-8": streams(CUT[0], b"data: \xff\xff\n\n"),
    "half a character": streams(b"data: \xe4\xbd"),
    "error in the stream": streams(CUT[0], event({"error": {"message": "engine died", "code": 500}})),
    "no list": streams(event({"choices": "x"})),
}


@pytest.mark.parametrize("how", TRANSIENT)
def test_what_may_pass_is_asked_again_and_counts_once(told: ToldServer, model: Opened, how: str) -> None:
    told.does(TRANSIENT[how], TRANSIENT[how])
    answer, increments = model.ask()
    assert (answer.text, answer.finish_reason, answer.retries) == ("Hello, world", FinishReason.STOP, 2)
    assert len(told.asked) == 3 and joined(increments)[0] == "Hello, world"
    assert answer.output_tokens == 3


@pytest.mark.parametrize("how", TRANSIENT)
def test_what_does_not_pass_ends_in_one_line(told: ToldServer, model: Opened, how: str) -> None:
    told.otherwise = TRANSIENT[how]
    answer, _ = model.ask()
    assert answer.finish_reason is FinishReason.ERROR and answer.retries == 4 and len(told.asked) == 5
    assert answer.error and "asked 5 times" in answer.error and "\n" not in answer.error


def test_the_server_says_how_long_to_wait(told: ToldServer, model: Opened) -> None:
    told.does(replies(429, {}, {"retry-after": "1"}))
    started = time.monotonic()
    model.submit(id="first")
    time.sleep(0.3)
    model.submit(id="second")
    assert {model.until_end()[0].generation_id for _ in range(2)} == {"first", "second"}
    assert time.monotonic() - started >= 1.0, "nothing is sent before the server wants it"
    told.does(replies(503, {}, {"retry-after": "3000"}))
    answer, _ = model.ask(deadline=time.monotonic() + 5)
    assert answer.finish_reason is FinishReason.ERROR and "asks to wait" in (answer.error or "")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (replies(400, {"error": {"message": "maximum context length is 10"}}), "400 Bad Request: maximum context"),
        (replies(401, {"detail": "no key"}), "401 Unauthorized: no key"),
        (replies(404, b"nothing\nhere"), "404 Not Found: nothing here"),
        (replies(200, {"choices": []}), "instead of a stream"),
        (
            replies(307, b"", {"location": "http://elsewhere.example/v1?key=1"}),
            "redirects to http://elsewhere.example/v1;",
        ),
        (streams(event({"error": {"message": "too long", "code": 400}})), "too long"),
        (streams(event({"object": "error", "message": "too long", "code": 400})), "too long"),
    ],
)
def test_what_stays_wrong_is_asked_once(told: ToldServer, model: Opened, behaviour: Any, words: str) -> None:
    told.does(behaviour)
    answer, _ = model.ask()
    assert answer.finish_reason is FinishReason.ERROR and answer.retries == 0 and len(told.asked) == 1
    assert answer.error and words in answer.error


def test_settings_that_the_server_refuses_are_left_out_and_noted(told: ToldServer, model: Opened) -> None:
    told.does(replies(400, {"error": {"message": "Unrecognized request argument supplied: top_k"}}))
    told.does(replies(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}))
    before = model.backend.description.environment
    answer, _ = model.ask(sampling={"top_k": 3})
    assert answer.text == "Hello, world" and answer.retries == 0
    assert not {"top_k", "seed"} & told.asked[2].body.keys() and told.asked[0].body["top_k"] == 3
    after = model.backend.description.environment
    assert after.facts["refused"] == ["seed", "top_k"] and after.id != before.id
    model.ask(sampling={"top_k": 3})
    assert len(told.asked) == 4, "it is not asked for what it refuses a second time"


def test_the_newer_name_of_max_tokens(told: ToldServer, model: Opened) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    told.does(replies(400, {"error": {"message": said}}))
    answer, _ = model.ask(sampling={"max_new_tokens": 9})
    assert answer.text == "Hello, world"
    assert "max_tokens" not in told.asked[1].body and told.asked[1].body["max_completion_tokens"] == 9


def test_a_value_out_of_range_is_no_unknown_setting(told: ToldServer, model: Opened) -> None:
    told.does(replies(400, {"error": {"message": "top_k must be at most 100, got 3000"}}))
    answer, _ = model.ask(sampling={"top_k": 3000})
    assert answer.finish_reason is FinishReason.ERROR and "at most 100" in (answer.error or "")


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


def test_it_is_looked_at_before_it_is_ready(told: ToldServer, opener: Opener) -> None:
    told.lists("a", "b")
    with pytest.raises(ModelError, match=r"no model 'told'; it has a, b"):
        opener(base_url=told.url)
    model = opener(base_url=told.url, model="b", price={"input": 1, "output": 2})
    assert model.stages == [LoadStage.PREPARING]
    description = model.backend.description
    facts = description.environment.facts
    assert facts["server"] == told.url and facts["server_model"] == "b" and facts["remote"] is True
    assert (description.device, description.slots) == ("remote", 8)
    assert description.facts["price"] == {"input": 1.0, "output": 2.0}
    del told.pages["/v1/models"]
    assert opener(base_url=told.url).ask()[0].text == "Hello, world"


def test_what_a_server_tells_of_itself(told: ToldServer, opener: Opener) -> None:
    told.lists(MODEL, owned_by="vllm", max_model_len=4096)
    told.pages["/version"] = (200, {}, json.dumps({"version": "0.32.1"}).encode())
    description = opener(base_url=told.url).backend.description
    assert description.environment.facts["server_version"] == "0.32.1" and description.facts["context"] == 4096
    assert description.environment.facts["dialect"] == "vllm"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(told: ToldServer, opener: Opener, status: int) -> None:
    told.pages["/v1/models"] = (status, {}, b'{"error": "who are you"}')
    with pytest.raises(ModelError, match="TOLD_API_KEY"):
        opener(base_url=told.url, key_env="TOLD_API_KEY")
    with pytest.raises(ModelError, match="key_env"):
        opener(base_url=told.url)


def test_a_server_that_is_not_there(told: ToldServer, opener: Opener) -> None:
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"http://127.0.0.1:9/v1 is not there.*correct base_url"):
        opener(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ModelError, match=r"no-such-host\.invalid"):
        opener(base_url="http://no-such-host.invalid")
    told.pages["/v1/models"] = (500, {}, b"oh")
    with pytest.raises(ModelError, match="answers 500: oh"):
        opener(base_url=told.url)
    assert time.monotonic() - started < 20


def test_a_server_that_says_nothing(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "INSPECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ModelError, match="does not answer in time"):
        opener(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1")


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
