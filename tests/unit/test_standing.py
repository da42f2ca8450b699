"""How models stand: computed from the ledger, without figures and without a language."""

import subprocess
import sys

from tasks.ledger import Ledger
from tasks.ledger.samples import Sample
from tasks.measures.standing import standing_of
from tasks.settings import ROOT, Settings
from tests.web import filled


def test_a_standing_has_the_times_of_every_model_that_answered(ledger: Ledger, settings: Settings) -> None:
    run = filled.conversation(ledger, settings)
    filled.answer(ledger)
    standing = standing_of(ledger, Sample(filled.MODELS, run))
    assert standing.latency.keys() == {"poet-small"} and standing.latency["poet-small"].n == 2
    assert standing.service == {"poet-small": (2.0, 2.0), "poet-large": ()}
    assert standing_of(ledger, Sample(filled.MODELS, "none")).latency == {}


def test_a_standing_needs_neither_plotly_nor_flask() -> None:
    code = "import sys, tasks.measures.standing; print([m for m in ('plotly', 'flask', 'web') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
