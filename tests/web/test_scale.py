"""No page and no call of the API reads more because a run is larger: by the work of the database, not by time."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import Engine

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.migrate import migrate
from tasks.ledger.records import Completion, NewRun
from tasks.ledger.samples import SAMPLE
from tasks.measures.answers import answer_of
from tasks.measures.grace import score_answer
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind
from web import create_app

MODELS = ["poet-small", "poet-large"]
SMALL = SAMPLE  # prompts for two models: twice the sample
LARGE = 6 * SMALL
STEPS = 100  # instructions of SQLite's virtual machine between two counts
PATHS = (
    "/",
    "/batches",
    "/models",
    "/benchmark",
    "/runs/{run}",
    "/runs/{run}?page=999999",
    "/report/{run}",
    "/report/{run}.md",
    "/api/runs/{run}",
    "/api/runs/{run}/completions?limit=50",
    "/api/runs/{run}/completions?limit=50&after=2000.0.poet-large",
    "/api/runs/{run}/completions?limit=50&model=poet-small&after=2000.0.poet-small",
    "/api/models",
    "/api/workers",
)


def finished_run(ledger: Ledger, prompts: int) -> str:
    """A run with all of its completions and scores."""
    new = NewRun(RunKind.BULK, "owner", dict.fromkeys(MODELS, 8), {})
    run, _ = ledger.runs.submit(new, (NewPrompt(f"prompt {i}") for i in range(prompts)))
    row = Completion(run.id, MODELS[0], 0, 0, "春天的诗", FinishReason.STOP, characters=4)
    metrics = score_answer(answer_of("prompt", None, row))
    values = "run, model, idx, 0, 'text', 'stop', 4, p.idx + 0.5, false, 1"
    columns = "run, model, idx, sample, text, finish_reason, characters, written, cold, attempt"
    with ledger.database.write() as connection:
        for model in MODELS:
            own = values.replace("model", f"'{model}'").replace("run", "p.run").replace("idx, 0", "p.idx, 0")
            of_run = {"run": run.id}
            connection.execute(
                text(f"INSERT INTO completion ({columns}) SELECT {own} FROM prompt p WHERE p.run = :run"), of_run
            )
            for metric in metrics:
                scores = f"SELECT run, '{model}', idx, 0, '{metric}', (idx % 7) / 7.0 FROM prompt WHERE run = :run"
                connection.execute(text(f"INSERT INTO score (run, model, idx, sample, metric, value) {scores}"), of_run)
        connection.execute(text("UPDATE chunk SET state = 'done', scored = true"))
        connection.execute(text("UPDATE run_model SET done = total, scored = 1"))
        connection.execute(text("UPDATE run SET state = 'done', finished = created"))
        connection.execute(text("ANALYZE"))
    return run.id


def visit(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    client.application.extensions["touchstone.figures"].wait()


@contextmanager
def counted_steps(engine: Engine) -> Iterator[list[int]]:
    """How many instructions SQLite executes meanwhile, in hundreds."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def watch(connection: sqlite3.Connection, *_: Any) -> None:
        connection.set_progress_handler(count, STEPS)

    engine.dispose()
    event.listen(engine, "connect", watch)
    try:
        yield steps
    finally:
        event.remove(engine, "connect", watch)


def steps_of(settings: Settings, prompts: int) -> dict[str, int]:
    migrate(settings)
    ledger = Ledger(settings)
    run = finished_run(ledger, prompts)
    ledger.close()
    found = {}
    for path in PATHS:
        client = create_app(settings).test_client()  # a new one keeps no figures
        with counted_steps(client.application.extensions["touchstone"].ledger.database.engine) as steps:
            visit(client, path.format(run=run))
        found[path] = steps[0]
    return found


def test_no_page_does_more_for_a_larger_run_on_sqlite(settings: Settings) -> None:
    sizes = {}
    for prompts in (SMALL, LARGE):
        url = f"sqlite:///{settings.data / f'{prompts}.db'}"
        sizes[prompts] = steps_of(replace(settings, database_url=url, data=settings.data / str(prompts)), prompts)
    assert any(sizes[SMALL].values())
    grown = {path: (steps, sizes[LARGE][path]) for path, steps in sizes[SMALL].items()}
    assert {path: pair for path, pair in grown.items() if pair[1] > 1.2 * pair[0] + 10} == {}


def selects_of(settings: Settings, path: str) -> list[tuple[str, Any]]:
    """The queries that a page makes, with their parameters."""
    client = create_app(settings).test_client()
    engine = client.application.extensions["touchstone"].ledger.database.engine
    made: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        made.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    visit(client, path)
    engine.dispose()
    return [(sql, parameters) for sql, parameters in made if sql.startswith(("SELECT", "WITH"))]


def blocks_of(settings: Settings, prompts: int) -> dict[str, int]:
    """How many blocks PostgreSQL touches for each path."""
    migrate(settings)
    ledger = Ledger(settings)
    try:
        run = finished_run(ledger, prompts)
        found = {}
        with ledger.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # or else autovacuum does it, at any moment of the test
        for path in PATHS:
            selects = selects_of(settings, path.format(run=run))
            with ledger.database.read() as connection:
                # So small a table is read and joined whole because that is cheap, not because there is no other way.
                for way in ("seqscan", "hashjoin", "mergejoin"):
                    connection.exec_driver_sql(f"SET enable_{way} = off")
                connection.exec_driver_sql("SET max_parallel_workers_per_gather = 0")
                plans = [_explain(connection, sql, parameters) for sql, parameters in selects]
            found[path] = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
        return found
    finally:
        ledger.close()
        migrate(settings, "base")


def _explain(connection: Connection, sql: str, parameters: Any) -> dict[str, Any]:
    rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", parameters)
    return dict(rows.scalar_one()[0]["Plan"])


def test_no_page_does_more_for_a_larger_run_on_postgresql(settings: Settings, postgres_url: str) -> None:
    # Of fewer, PostgreSQL would rather read all than look up half of them.
    sizes = [4 * SMALL, 2 * LARGE]
    small, large = (blocks_of(replace(settings, database_url=postgres_url), prompts) for prompts in sizes)
    assert min(small.values()) > 0
    assert {path: (small[path], large[path]) for path in PATHS if large[path] > 1.5 * small[path] + 50} == {}
