"""Which addresses the backend `openai` asks, and that a key is never told to anybody."""

import ipaddress
import logging
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigurationError, ModelError
from tasks.registry import Registry
from tasks.registry.entry import OpenAIModel
from tasks.settings import ROOT
from tasks.states import FinishReason
from tests.backends.conftest import KEY, Opener
from tests.backends.told_server import (
    ToldServer,
    echoes_key,
    event,
    replies,
    streams,
    whole,
)
from tests.conftest import require
from worker.backends.openai import client as client_module
from worker.backends.openai.addresses import CheckedAddresses
from worker.backends.openai.sockets import listens_beyond_loopback

LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]
PUBLIC = ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"]
PRIVATE = [
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "fe80::1",
    "fd00:ec2::254",
    "::ffff:10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:a00:1::1",
    "198.18.0.1",
]
NOWHERE = ["0.0.0.0", "::", "224.0.0.1", "ff02::1"]


@pytest.mark.parametrize("address", LOOPBACK + PUBLIC + PRIVATE + NOWHERE)
def test_which_addresses_may_be_asked(address: str) -> None:
    def allowed(**options: bool) -> bool:
        return CheckedAddresses(**options).objection(ipaddress.ip_address(address)) is None

    assert allowed(private=False, clear_key=False) == (address in LOOPBACK + PUBLIC)
    assert allowed(private=True, clear_key=False) == (address not in NOWHERE)
    assert allowed(private=True, clear_key=True) == (address in LOOPBACK + PRIVATE)


def test_a_private_address_is_refused_at_the_start(opener: Opener) -> None:
    with pytest.raises(ModelError, match=r"10\.1\.2\.3, an address of a private network.*private = true"):
        opener(base_url="http://10.1.2.3:8000/v1")
    with pytest.raises(ModelError, match=r"169\.254\.169\.254"):
        opener(base_url="http://169.254.169.254/latest")


def test_a_name_that_leads_elsewhere_later_is_refused(
    told: ToldServer, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["192.168.0.7"]]
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "rebinds.example":
            return real(host, port, *args, **options)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(client_module, "KEEP_SECONDS", 0.0)
    model = opener(base_url=f"http://rebinds.example:{told.port}/v1")
    answer, _ = model.ask()
    assert answer.finish_reason is FinishReason.ERROR and answer.error and "192.168.0.7" in answer.error
    assert not told.asked and answer.retries == 0


def test_redirects_and_proxies_are_not_followed(
    told: ToldServer, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert opener(base_url=told.url).ask()[0].text == "Hello, world"
    told.pages["/v1/models"] = (302, {"location": "http://169.254.169.254/"}, b"")
    with pytest.raises(ModelError, match=r"redirects to http://169\.254\.169\.254/; give that as base_url"):
        opener(base_url=told.url)


def test_a_certificate_that_nobody_vouches_for_is_refused(told: ToldServer, opener: Opener, tmp_path: Path) -> None:
    require(shutil.which("openssl") is not None, "openssl")
    made = [
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *made]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    told.socket = context.wrap_socket(told.socket, server_side=True)
    with pytest.raises(ModelError, match="certificate cannot be verified: self-signed"):
        opener(base_url=told.url.replace("http:", "https:"))
    assert not told.looked


def test_a_key_is_sent_and_never_told(told: ToldServer, opener: Opener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    model = opener(base_url=told.url, key_env="TOLD_API_KEY")
    assert model.ask()[0].text == "Hello, world"
    assert told.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    error = event({"error": {"message": f"the key {KEY} is bad", "code": 400}})
    behaviours = [
        echoes_key,
        streams(error),
        replies(500, f"key={KEY}".encode()),
        replies(302, b"", {"location": f"http://x.example/{KEY}"}),
        replies(400, {"error": {"message": f"top_k is unknown to {KEY}"}}),
        streams(whole("x", reason=KEY)),
        replies(200, f"<p>{KEY}</p>".encode()),
    ]
    lines: list[str] = []
    for behaviour in behaviours:
        told.behaviours.clear()
        told.does(*[behaviour] * 5)
        answer, _ = model.ask(sampling={"top_k": 1})
        lines.append(answer.error or "")
    assert all("[key]" in line for line in lines), lines
    facts = repr((model.backend.description, model.entry, model.entry.snapshot()))
    told.pages["/v1/models"] = (401, {}, f'{{"error": "{KEY}"}}'.encode())
    with pytest.raises(ModelError) as refused:
        opener(base_url=told.url, key_env="TOLD_API_KEY")
    shown = "\n".join([*lines, facts, caplog.text, refused.value.message])
    assert "[key]" in refused.value.message and KEY not in shown


def test_a_missing_key_is_named_by_its_variable(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="NO_SUCH_KEY is not set"):
        opener(base_url="http://127.0.0.1:9", key_env="NO_SUCH_KEY")
    monkeypatch.setenv("BAD_KEY", "two\nlines")
    with pytest.raises(ModelError) as raised:
        opener(base_url="http://127.0.0.1:9", key_env="BAD_KEY")
    assert "BAD_KEY" in raised.value.message and "two" not in raised.value.message


ENTRY = '[[model]]\nname = "a"\nbackend = "openai"\n'
URL = 'base_url = "https://api.example.com/v1"\n'
SERVE = 'serve = ["server", "--port", "{port}"]\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (URL + 'key_env = "sk-very-secret"\n', 5, "must name a variable"),
        (URL + 'key_env = "sk_very_secret"\n', 5, "must name a variable"),
        ('base_url = "https://user:secret@api.example.com/v1"\n', 4, "no user, password or query"),
        ('base_url = "https://api.example.com/v1?key=secret"\n', 4, "no user, password or query"),
        ('base_url = "api.example.com"\n', 4, "https://api.example.com/v1"),
        ('base_url = "ftp://api.example.com"\n', 4, "https://api.example.com/v1"),
        ('base_url = "http://x:99999999/"\n', 4, "https://api.example.com/v1"),
        (URL + "price = { input = -1 }\n", 5, "per million tokens"),
        (URL + "price = { in = 1 }\n", 5, "per million tokens"),
        (URL + 'template = "Q: {prompt}"\n', 5, "api = 'completions'"),
        (URL + 'api = "completions"\nsystem = "s"\n', 6, "api = 'chat'"),
        (URL + 'api = "completions"\nthinking = true\n', 6, "api = 'chat'"),
        (URL + 'api = "completions"\ntemplate = "chat"\n', 6, "api = 'chat'"),
        (URL + "private = 1\n", 5, "true or false"),
        (URL + SERVE, 4, "either base_url or serve"),
        ('serve = ["server"]\n', 4, "{port}"),
        ('serve = ["server", "{source}", "{port}"]\n', 4, "add source"),
        ('serve = "server"\n', 4, "list of words"),
    ],
)
def test_an_entry_that_contradicts_itself(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(ENTRY + text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        Registry.load(file)
    assert words in raised.value.message and f"models.toml:{line}:" in raised.value.message
    assert "secret" not in raised.value.message


def test_the_documented_entries_are_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    for number, example in enumerate(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, encoding="utf-8")
        assert Registry.load(file).names
    keys = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)))
    assert set(OpenAIModel.model_fields) - {"name", "backend", "registry_folder"} <= set(keys)


def test_an_entry_of_a_source_beside_the_registry(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").touch()
    file = tmp_path / "models.toml"
    file.write_text(ENTRY + 'source = "weights.gguf"\n' + SERVE, encoding="utf-8")
    entry = Registry.load(file).get("a")
    assert isinstance(entry, OpenAIModel) and entry.location == str(tmp_path / "weights.gguf")


def test_who_can_reach_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("0.0.0.0", 0)) as far:
        assert not listens_beyond_loopback(near.getsockname()[1])
        assert listens_beyond_loopback(far.getsockname()[1])
