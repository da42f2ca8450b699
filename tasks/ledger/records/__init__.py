"""What the ledger takes and gives: frozen values, so that nobody outside it knows rows or SQL."""

from tasks.ledger.records.chunks import Answered, Claim, Dispatched, Swept
from tasks.ledger.records.completions import Completion, Environment, Rendered, ScoreRow
from tasks.ledger.records.prompts import (
    Imported,
    NewAnswer,
    Prompt,
    PromptSet,
    Upload,
    columns_of,
    prompt_from,
    prompt_of,
)
from tasks.ledger.records.runs import Counts, NewRun, Run, Wait
from tasks.ledger.records.workers import Worker

__all__ = [
    "Answered",
    "Claim",
    "Completion",
    "Counts",
    "Dispatched",
    "Environment",
    "Imported",
    "NewAnswer",
    "NewRun",
    "Prompt",
    "PromptSet",
    "Rendered",
    "Run",
    "ScoreRow",
    "Swept",
    "Upload",
    "Wait",
    "Worker",
    "columns_of",
    "prompt_from",
    "prompt_of",
]
