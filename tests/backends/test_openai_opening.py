"""The backend `openai` before it is ready: one look at the server, and what it tells of itself."""

import json
import socket
import time

import pytest

from tasks.errors import ModelError
from tasks.states import LoadStage
from tests.backends.conftest import Opener
from tests.backends.told_server import MODEL, ToldServer
from worker.backends.openai import inspection


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
