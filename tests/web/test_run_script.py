"""The run page in a real browser, fed by hand over a real Redis: what streams, what ends, what waits."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from tasks.ledger import Ledger
from tasks.queue.live import Live, LiveEvent
from tasks.settings import Settings
from tasks.states import LoadStage, WorkerState
from tests.conftest import require
from tests.web import filled
from tests.web.browser import Page, browser
from web import create_app
from web.language import TEXTS


@pytest.fixture
def served(redis_settings: Settings) -> Iterator[tuple[str, Settings]]:
    """The address of a web server that listens, with the settings that name its Redis."""
    server = make_server("127.0.0.1", 0, create_app(redis_settings), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", redis_settings
    server.shutdown()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    require(binary is not None, "Chromium")
    assert binary is not None
    with browser(binary, tmp_path / "chromium") as opened:
        yield opened


def said(name: str, part: str) -> str:
    """JavaScript for the text of a part of a completion that can be seen; empty where the part is hidden."""
    where = f"document.querySelector('[data-cell=\"{name}\"] {part}')"
    return f"({where}.hidden ? '' : {where}.textContent)"


def test_the_page_shows_what_happens_while_it_happens(served: tuple[str, Settings], page: Page, ledger: Ledger) -> None:
    url, settings = served
    run = filled.conversation(ledger, settings)
    filled.register(ledger, "poet-large", WorkerState.LOADING, stage=LoadStage.READING, stage_share=0.5)
    page.open(f"{url}/runs/{run}")
    assert page.value("!document.getElementById('continue').hidden")
    wait = "document.querySelector('[data-wait=poet-large]')"
    assert f"{TEXTS['stage.reading']['zh']} 50%" in page.value(f"{wait}.textContent")
    assert page.value(f"{wait}.querySelector('[data-blocked]').hidden")
    filled.register(ledger, "poet-large", WorkerState.FAILED, error="no such folder")
    page.until(f"{wait}.textContent.includes('no such folder')")
    assert not page.value(f"{wait}.querySelector('[data-blocked]').hidden")

    live = Live(settings.redis_url)
    live.publish(run, [LiveEvent("", "poet-small", 0, 0, 1, "", "think <b>")])
    page.until(f"{said('poet-small/0/0', '.thinking p')} === 'think <b>'")
    assert page.value("document.querySelector('[data-cell=\"poet-small/0/0\"] .thinking').open")
    live.publish(run, [LiveEvent("", "poet-small", 0, 0, 1, "half "), LiveEvent("", "poet-small", 0, 0, 1, "<i>")])
    page.until(f"{said('poet-small/0/0', '.answer')} === 'half <i>'")
    assert not page.value("document.querySelector('[data-cell=\"poet-small/0/0\"] .thinking').open")
    live.publish(run, [LiveEvent("", "poet-small", 0, 0, 2, "anew")])
    page.until(f"{said('poet-small/0/0', '.answer')} === 'anew'")
    assert page.value(said("poet-small/0/0", ".thinking")) == ""

    filled.answer(ledger)
    page.until(f"{said('poet-small/0/0', '.answer')}.startsWith('您好')")
    characters = len(f"嗯 {filled.EVIL}")
    summary = TEXTS["run.thinking"]["zh"].format(tokens=4, characters=characters)
    assert page.value(said("poet-small/0/0", ".thinking summary")) == summary
    empty = TEXTS["run.empty"]["zh"].format(reason=TEXTS["finish.stop"]["zh"])
    page.until(f"{said('poet-small/1/0', '.empty')} === '{empty}'")
    assert page.value("document.querySelector('[data-wait=poet-small]').hidden")

    page.open(f"{url}/runs/{run}")
    details = "document.querySelector('[data-cell=\"poet-small/0/0\"] [data-rendered]')"
    page.value(f"{details}.open = true")
    page.until(f"{details}.textContent.includes('1 2 3')")
    assert f"<s>你好 {filled.EVIL}" in page.value(f"{details}.textContent")
    assert page.problems == []
