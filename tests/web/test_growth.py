"""What a run is given on its page: models, answers, prompts, samples, other runs' columns, a name for its prompts."""

import io
import re
from typing import Any

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
def run(client: FlaskClient) -> str:
    """A run of two prompts for one model."""
    sent = client.post("/api/runs", json={"prompts": ["一", "二"], "models": ["poet-small"], "set_name": "题"})
    assert sent.json
    return str(sent.json["id"])


def grow(client: FlaskClient, run_id: str, what: str, **form: Any) -> Any:
    page = client.get(f"/runs/{run_id}/grow")
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page.text)[0]
    return client.post(f"/runs/{run_id}/grow/{what}", data={"csrf_token": token, **form})


def test_models_and_samples_join(client: FlaskClient, ledger: Ledger, run: str) -> None:
    assert grow(client, run, "models", models="poet-large").status_code == 303
    assert grow(client, run, "samples", samples="2").status_code == 303
    grown = ledger.runs.get(run)
    assert list(grown.models) == ["poet-small", "poet-large"] and grown.samples == 3 and grown.counts.total == 12
    again = grow(client, run, "models", models="poet-large")
    assert again.status_code == 409 and "poet-large" in again.text
    assert grow(client, run, "samples", samples="many").status_code == 422


def test_a_file_of_prompts_is_shown_before_it_joins(client: FlaskClient, ledger: Ledger, run: str) -> None:
    looked = grow(client, run, "prompts", file=(io.BytesIO("问题\n三\n四\n".encode()), "more.csv"))
    shown = client.get(looked.location).text
    assert looked.status_code == 303 and "三" in shown and ledger.runs.get(run).prompts == 2
    form = dict(re.findall(r'name="(csrf_token|run|reading)" value="([^"]*)"', shown))
    form["reading"] = form["reading"].replace("&#34;", '"')
    place = looked.location.partition("?")[0]
    assert client.post(f"{place}/add", data=form).status_code == 303
    assert [one.text for one in ledger.runs.prompts(run)] == ["一", "二", "三", "四"]
    assert grow(client, run, "prompts").status_code == 422


def test_answers_made_elsewhere_stand_beside(client: FlaskClient, ledger: Ledger, run: str) -> None:
    filled.register(ledger, "poet-small")
    file = (io.BytesIO("问题,answer\n一,=甲\n五,乙\n二,\n".encode()), "theirs.csv")
    done = grow(client, run, "answers", file=file, label="gpt")
    assert done.status_code == 200 and "gpt (imported)" in done.text
    (row,) = [one for one in ledger.completions.page(run) if one.model == "gpt (imported)"]
    assert (row.text, row.idx) == ("=甲", 0)
    shown = client.get(f"/runs/{run}").text
    assert "=甲" in shown and "gpt (imported)" in shown
    exported = client.get(f"/runs/{run}/export/csv")
    assert "'=甲".encode() in exported.data and "attachment" in exported.headers["Content-Disposition"]
    assert client.get(f"/runs/{run}/export/docx").status_code == 422


def test_runs_of_the_same_prompts_are_found_and_merged(client: FlaskClient, ledger: Ledger, run: str) -> None:
    other = client.post("/api/runs", json={"prompts": ["一", "二"], "models": ["poet-large"]}).json
    assert other and other["id"] in client.get(f"/runs/{run}/grow").text
    unfinished = grow(client, run, "merge", run=other["id"])
    assert unfinished.status_code == 409
    assert grow(client, run, "name_set", name="春题").status_code == 303
    assert ledger.runs.get(other["id"]).set_name == "春题"
    assert other["id"] in client.get("/batches?search=春题").text
    assert grow(client, run, "name_set", name="").status_code == 422
