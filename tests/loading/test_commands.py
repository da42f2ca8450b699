"""``models add``, ``check`` and ``remove``: what they write, show and refuse."""

import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.commands import main
from tasks.registry import Registry
from tasks.registry.editing import add_model, remove_model
from tasks.settings import ROOT
from tests.loading.checkpoints import save

REGISTRY = """# Mine.\r
\r
[[model]]
name = "first"
source = "a/b"   # a comment
label = { en = "[[model]]" }

# About the second.
[[ model ]]
name = 'second'
source = "c/d"
description = { en = \"\"\"
# no comment
\"\"\" }
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_bytes(REGISTRY.encode())
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, words)])


def failed(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code in (1, 3), result.output
    assert result.output.startswith("touchstone: ") and result.output.count("\n") == 1
    return result.output


def test_a_model_is_added_with_the_decoding_that_its_makers_recommend_else_a_mild_one(
    registry: Path, tmp_path: Path
) -> None:
    advised, chats, plain = (save(tmp_path / name) for name in ("advised", "chats", "plain"))
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 7, "repetition_penalty": None}
    (advised / "generation_config.json").write_text(json.dumps(said), encoding="utf-8")
    (chats / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    for folder in (advised, chats, plain):
        assert run("add", folder, "--models", registry).exit_code == 0
    entries = Registry.load(registry).models
    assert entries["advised"].decoding == {"temperature": 0.6, "top_k": 20}
    assert entries["chats"].decoding == {"temperature": 0.7, "top_p": 0.9}
    assert entries["plain"].decoding == {}


def test_adding_looks_at_the_model_and_appends_its_block(registry: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "My Model.v2")
    result = run("add", folder, "--models", registry)
    assert result.exit_code == 0, result.output
    shown = dict(line.split(maxsplit=1) for line in result.output.splitlines() if "  " in line and "chat" not in line)
    assert (shown["architecture"], shown["format"], shown["context"]) == (
        "LlamaForCausalLM",
        "safetensors",
        "64 tokens",
    )
    assert shown["fits"].startswith("yes") and "GB" in shown["memory"] and "chat template  no" in result.output
    text = registry.read_bytes().decode()
    assert text.startswith(REGISTRY) and 'source = "./My Model.v2"' in text
    entry = Registry.load(registry).get("my-model.v2")
    assert entry.source == "./My Model.v2"
    assert run("add", folder, "--models", registry, "--name", "my-model.v2").exit_code == 3
    assert "has this model already, as 'my-model.v2'" in failed("add", folder, "--models", registry, "--name", "new")
    assert run("remove", "my-model.v2", "--models", registry).exit_code == 0
    assert registry.read_bytes() == REGISTRY.encode()


def test_adding_makes_a_registry_where_there_is_none(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    assert run("add", folder, "--models", tmp_path / "new.toml", "--name", "one").exit_code == 0
    assert Registry.load(tmp_path / "new.toml").names == ["one"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./nowhere"], "not there"),
        (["a.gguf"], "no file"),
        (["{tmp}"], "no config.json"),
        (["{tmp}", "--model", "x"], "--model does not go with"),
        (["http://127.0.0.1:1/v1", "--revision", "x"], "--revision does not go with"),
        (["http://127.0.0.1:1/v1"], "say which of its models with --model"),
    ],
)
def test_what_cannot_be_added_is_said_and_changes_nothing(
    registry: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    words = [word.format(tmp=tmp_path) for word in words]
    assert said in failed("add", *words, "--models", registry)
    assert registry.read_bytes() == REGISTRY.encode()


def test_a_model_that_is_broken_is_not_added(registry: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    os.truncate(folder / "model.safetensors", 5000)
    assert "damaged" in failed("add", folder, "--models", registry)
    assert registry.read_bytes() == REGISTRY.encode()


@pytest.fixture
def server() -> Iterator[str]:
    """A server that tells two models, as those with OpenAI's interface do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "Qwen/Qwen3-8B"}, {"id": "other"}]}).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is written of requests."""

    with HTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/v1"
        serving.shutdown()


def test_a_servers_model_is_added_by_its_address(registry: Path, server: str) -> None:
    assert "Qwen/Qwen3-8B, other" in failed("add", server, "--models", registry)
    assert "has no model 'nope'" in failed("add", server, "--model", "nope", "--models", registry)
    result = run("add", server, "--model", "Qwen/Qwen3-8B", "--key-env", "MY_KEY", "--models", registry)
    assert result.exit_code == 0, result.output
    entry = tomllib.loads(registry.read_text(encoding="utf-8"))["model"][-1]
    assert entry == {
        "name": "qwen3-8b",
        "backend": "openai",
        "base_url": server,
        "model": "Qwen/Qwen3-8B",
        "key_env": "MY_KEY",
    }


def test_a_server_in_a_private_network_is_allowed_by_adding_it(registry: Path) -> None:
    add_model(registry, {"name": "x", "backend": "openai", "base_url": "http://a/v1", "private": True})
    assert tomllib.loads(registry.read_text(encoding="utf-8"))["model"][-1]["private"] is True


@pytest.mark.parametrize("name", ["first", "second"])
def test_removing_takes_out_that_block_and_nothing_else(registry: Path, name: str) -> None:
    before = tomllib.loads(REGISTRY)["model"]
    assert run("remove", name, "--models", registry).exit_code == 0
    text = registry.read_bytes().decode()
    assert tomllib.loads(text)["model"] == [block for block in before if block["name"] != name]
    assert text.startswith("# Mine.\r\n") and "# About the second.\n" in text
    assert "the only model" in failed("remove", tomllib.loads(text)["model"][0]["name"], "--models", registry)


def test_removing_what_is_not_there_names_what_is(registry: Path) -> None:
    assert "first, second" in failed("remove", "third", "--models", registry)


def test_a_block_that_cannot_be_told_apart_is_left_to_a_person(registry: Path) -> None:
    tricky = REGISTRY.replace("# no comment", "[[model]]")
    registry.write_bytes(tricky.encode())
    assert "by hand" in failed("remove", "first", "--models", registry)
    assert registry.read_bytes() == tricky.encode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=TEXTS, system=TEXTS, cores=st.lists(st.integers(0, 99), max_size=3), thinking=st.booleans())
def test_whatever_is_added_reads_as_given_and_leaves_without_a_trace(
    registry: Path, source: str, system: str, cores: list[int], thinking: bool
) -> None:
    block = {"name": "new", "source": source, "system": system, "cores": cores, "thinking": thinking}
    add_model(registry, block)
    assert tomllib.loads(registry.read_bytes().decode())["model"][-1] == block
    remove_model(registry, "new")
    assert registry.read_bytes() == REGISTRY.encode()


def check(registry: Path, name: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tasks", "models", "check", name, "--prompt", "春", "--models", str(registry)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_checking_loads_the_model_and_shows_its_answer(tmp_path: Path) -> None:
    registry = tmp_path / "models.toml"
    add_model(registry, {"name": "poet", "source": str(ROOT / "worker/demo/poet-small"), "template": "{prompt}\n"})
    broken = save(tmp_path / "broken")
    config = (broken / "config.json").read_text(encoding="utf-8")
    more = config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    (broken / "config.json").write_text(more, encoding="utf-8")
    add_model(registry, {"name": "broken", "source": str(broken)})
    done = check(registry, "poet")
    assert done.returncode == 0, done.stderr
    for text in ("loaded in", "GPT2LMHeadModel", "safetensors", "tokens/s", "answer  "):
        assert text in done.stdout
    assert "warming up" in done.stderr
    done = check(registry, "broken")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[:-1] == ["reading"], "one line beside the stages, whatever the libraries say"
    assert done.stderr.splitlines()[-1].startswith("touchstone: broken: cannot load ")
    assert "lacks 9 weights" in done.stderr
    assert "poet, broken" in failed("check", "nobody", "--models", registry)
