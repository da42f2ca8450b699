"""What can be asked of the API: one row an operation."""

from dataclasses import dataclass
from http import HTTPMethod

from pydantic import BaseModel

from tasks.files.read.reading import Reading
from tasks.run_schema import PriorityOption
from tasks.states import RunAction
from web.schema import answers, requests

FILE = "application/octet-stream"
DOWNLOAD = "application/octet-stream"
STREAM = "text/event-stream"
EVENTS: dict[str, type[BaseModel]] = {
    "delta": answers.Delta,
    "completion": answers.Completion,
    "state": answers.Progress,
    "end": answers.Progress,
}


@dataclass(frozen=True)
class Operation:
    """One way to call a path.

    ``answer`` is the schema of its success (None: it has no body) and ``media`` its type where that is not JSON.
    ``body`` is the schema of the JSON to send, ``file`` says that a file is sent instead, ``headers`` are those it
    reads.
    """

    method: HTTPMethod
    path: str
    summary: str
    answer: type[BaseModel] | None = None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    media: str = "application/json"
    file: bool = False

    @property
    def errors(self) -> tuple[int, ...]:
        """The statuses of its errors, besides 405 for other methods."""
        found = [503]
        if self.body:
            found += [400, 413, 415, 422]
        if self.file:
            found += [413, 415, 422]
        if self.query or self.headers == (KEY,):
            found.append(422)
        if "{" in self.path or self.body is requests.NewRun or self.file:
            found.append(404)  # a run, or a model that is named
        if self.body or self.file:
            found.append(409)
        return tuple(sorted(set(found)))


KEY = "Idempotency-Key"
GET, POST, PUT, DELETE = HTTPMethod.GET, HTTPMethod.POST, HTTPMethod.PUT, HTTPMethod.DELETE
RUN = "/api/runs/{id}"
ACTIONS = {
    RunAction.PAUSE: "Start nothing more of a run; what has begun is done to its end",
    RunAction.RESUME: "Let a paused run go on",
    RunAction.CANCEL: "End a run; partial text is kept",
    RunAction.RETRY: "Do again what failed of a run",
}

OPERATIONS = (
    Operation(POST, "/api/runs", "Put prompts to models", answers.Submitted, 202, body=requests.NewRun, headers=(KEY,)),
    Operation(GET, "/api/runs", "Runs, newest first", answers.Runs, query=requests.RunsQuery),
    Operation(
        POST,
        "/api/uploads",
        "Hand in a file of prompts or answers; says what it holds",
        answers.Upload,
        201,
        query=requests.UploadQuery,
        file=True,
    ),
    Operation(
        POST,
        "/api/uploads/{upload_id}/preview",
        "What a file holds when it is read in another way",
        answers.Upload,
        body=Reading,
    ),
    Operation(DELETE, "/api/uploads/{upload_id}", "Remove a file", status=204),
    Operation(GET, RUN, "State, counts, settings, and why a model waits", answers.Run),
    Operation(DELETE, RUN, "Delete a run with all its rows", status=204),
    Operation(
        POST,
        f"{RUN}/prompts",
        "Continue a conversation (`follows`) or add prompts, for every model and sample of the run",
        answers.Followed,
        202,
        body=requests.MorePrompts,
    ),
    Operation(POST, f"{RUN}/models", "Add models to a run, in any state", answers.Run, body=requests.MoreModels),
    Operation(POST, f"{RUN}/samples", "Let every model answer more often", answers.Run, body=requests.MoreSamples),
    Operation(
        POST, f"{RUN}/answers", "Add answers that were made elsewhere", answers.Imported, body=requests.MadeElsewhere
    ),
    Operation(
        POST, f"{RUN}/merge", "Copy the columns of another run of the same prompts", answers.Run, body=requests.OtherRun
    ),
    Operation(GET, f"{RUN}/prompts", "Prompts, as they were handed in", answers.Prompts, query=requests.PromptsQuery),
    Operation(GET, f"{RUN}/scores", "What was measured of completions", answers.Scores, query=requests.PageQuery),
    Operation(GET, f"{RUN}/export", "The whole run as a file", query=requests.ExportQuery, media=DOWNLOAD),
    Operation(
        GET, f"{RUN}/completions", "Completions with their phases", answers.Completions, query=requests.PageQuery
    ),
    Operation(GET, f"{RUN}/rendered", "A prompt as its model saw it", answers.Rendered, query=requests.CompletionQuery),
    Operation(
        GET,
        f"{RUN}/events",
        "Server-Sent Events of a run, from its first or the one after Last-Event-ID",
        media=STREAM,
        headers=("Last-Event-ID",),
    ),
    *(Operation(POST, f"{RUN}/{action}", text, answers.Run, body=requests.Nothing) for action, text in ACTIONS.items()),
    Operation(
        POST,
        f"{RUN}/models/{{model}}/fail",
        "Let what is pending of one model of a run fail, with the reason for which it waits",
        answers.Run,
        body=requests.Nothing,
    ),
    Operation(
        POST,
        f"{RUN}/priority",
        "Let a run go before (above 0) or after others of its kind",
        answers.Run,
        body=PriorityOption,
    ),
    Operation(POST, "/api/estimate", "How long a run would take now", answers.Estimate, body=requests.EstimateRequest),
    Operation(GET, "/api/sets", "Sets of prompts, with the names they have", answers.PromptSets),
    Operation(PUT, "/api/sets/{digest}", "Give a set of prompts a name", status=204, body=requests.SetName),
    Operation(GET, "/api/models", "The models, with the state of their workers", answers.Models),
    Operation(GET, "/api/workers", "Worker processes", answers.Workers),
    Operation(GET, "/healthz", "Is the process up", answers.Health),
    Operation(GET, "/readyz", "Are ledger and Redis there", answers.Health),
)
