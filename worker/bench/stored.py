"""How fast a run is that was made before: one demo model answers prompts, and then again from its stored answers."""

import time
from typing import Any

from tasks.settings import ROOT
from tasks.states import Origin
from worker.bench.deployment import scene
from worker.bench.over_http import MODEL, Site

REGISTRY = f"""
[[model]]
name = "{MODEL}"
source = "{ROOT / "worker" / "demo" / "poet-small"}"
slots = 64
template = "{{prompt}}\\n"
decoding = {{ max_new_tokens = 8 }}
"""


def repeat(database: str, number: int) -> dict[str, Any]:
    """Completions a second of a run of ``number`` prompts: computed, then stored ones, then computed without a look-up.

    Raises `TimeoutError`.
    """
    prompts = [f"第{index}首：春天" for index in range(number)]
    with scene(database, REGISTRY) as settings, Site(settings, prompts, 2).running() as site:
        return {name: _once(site, number, name == "fresh") for name in ("computed", "stored", "fresh")}


def _once(site: Site, number: int, fresh: bool) -> dict[str, Any]:
    started = time.monotonic()
    run_id = site.submit(fresh)
    site.wait_until_done(run_id)
    seconds = time.monotonic() - started
    origins = [row.origin for row in site.ledger.completions.every(run_id)]
    return {
        "seconds": round(seconds, 2),
        "completions_per_second": round(number / seconds),
        "cached": origins.count(Origin.CACHED),
    }
