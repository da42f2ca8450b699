"""A run as a file, through the API and from its page."""

import json

import pytest
from flask.testing import FlaskClient

from tasks.ledger import Ledger
from tasks.settings import Settings
from tests.web import filled
from web import create_app


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def run(ledger: Ledger, settings: Settings) -> str:
    run_id = filled.conversation(ledger, settings)
    filled.answer(ledger)
    return run_id


@pytest.mark.parametrize("models", [["poet-small"], ["poet-large", "poet-small"]])
def test_the_models_of_an_export_are_chosen_by_the_address(client: FlaskClient, run: str, models: list[str]) -> None:
    query = "&".join(f"models={name}" for name in models)
    answer = client.get(f"/api/runs/{run}/export?format=jsonl&{query}")
    header = json.loads(answer.text.splitlines()[0])
    assert sorted(model["name"] for model in header["models"]) == sorted(models)
    assert client.get(f"/api/runs/{run}/export?format=csv&models=nope").status_code == 422


def test_a_page_asks_which_two_models_are_compared(client: FlaskClient, run: str) -> None:
    page = client.get(f"/runs/{run}/grow").text
    form = page[page.index(f'action="/runs/{run}/export/llm-comparator"') :]
    assert form.count('<select name="models"') == 2
    assert "<option selected>poet-small</option>" in form and "<option selected>poet-large</option>" in form
    answer = client.get(f"/runs/{run}/export/llm-comparator?models=poet-small&models=poet-small")
    assert answer.status_code == 422 and 'role="alert"' in answer.text


@pytest.mark.parametrize("title", ["问题.csv", "问题.XLSX", "问题"])
def test_a_file_is_named_after_its_run_without_a_second_ending(client: FlaskClient, ledger: Ledger, title: str) -> None:
    made = client.post("/api/runs", json={"prompts": ["a"], "models": ["poet-small"], "title": title}).json
    filled.answer(ledger)
    assert made
    found = client.get(f"/api/runs/{made['id']}/export?format=csv").headers["Content-Disposition"]
    assert found.endswith("%E9%97%AE%E9%A2%98.csv")
