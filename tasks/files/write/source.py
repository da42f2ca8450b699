"""What is exported: a run, the models of it that were chosen, and where its rows come from."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.files.write.naming import iso
from tasks.ledger import Ledger
from tasks.ledger.records import Run
from tasks.ledger.results import Result
from tasks.states import Origin
from tasks.version import VERSION


@dataclass(frozen=True)
class Source:
    """A run with the ``models`` of it that are exported, in their order."""

    ledger: Ledger
    run: Run
    models: tuple[str, ...]

    def only(self, model: str) -> "Source":
        return replace(self, models=(model,))

    def pages(self) -> Iterator[list[Result]]:
        """Every prompt with its completions, some at a time. Raises `NotFound` where the run is deleted meanwhile."""
        return self.ledger.results.pages(self.run.id, self.models, self.run.samples)

    def metrics(self) -> list[str]:
        """The metrics that there are scores of."""
        return self.ledger.results.metrics(self.run.id, self.models)

    def environments(self, ids: Collection[str] | None = None) -> dict[str, Any]:
        """Facts by id of these environments, else of those that a look over the whole run finds."""
        if ids is None:
            ids = self.ledger.results.environments(self.run.id, self.models, self.run.prompts)
        return {each.id: each.facts for each in self.ledger.completions.environments(sorted(ids)).values()}

    def header(self) -> dict[str, Any]:
        """What the answers were made with: the run, its prompts' digest, models, every setting, environments."""
        run = self.run
        return {
            "type": "run",
            "touchstone": VERSION,
            "run": {
                "id": run.id,
                "title": run.title,
                "kind": run.kind,
                "state": run.state,
                "created": iso(run.created),
                "finished": iso(run.finished),
                "samples": run.samples,
                "deadline": run.deadline,
                "fresh": run.fresh,
                "batch": run.batch,
                "sampling": dict(run.sampling),
            },
            "prompt_set": {"digest": run.prompt_set, "name": run.set_name, "prompts": run.prompts},
            "models": [self.model(name) for name in self.models],
            "environments": self.environments(),
        }

    def model(self, name: str) -> dict[str, Any]:
        """A model with its counts, its entry in the registry and the settings that follow from it and from the run.

        ``entry`` and ``settings`` are None for imported columns, and for runs of older ledgers.
        """
        entry = self.run.entries.get(name)
        return {
            "name": name,
            "origin": self.run.origins.get(name, Origin.COMPUTED),
            "counts": self.run.models[name].to_dict(),
            "identity": entry.identity if entry else None,
            "entry": entry.snapshot() if entry else None,
            "settings": entry.effective(self._sampling(name)) if entry else None,
        }

    def _sampling(self, name: str) -> Mapping[str, Any]:
        """The settings that a column was asked with: a merged one has those of its own run."""
        return self.run.samplings.get(name, self.run.sampling)

    def settings(self, name: str) -> dict[str, Any]:
        """The decoding settings of a model in this run, as far as they are known."""
        entry = self.run.entries.get(name)
        return entry.effective(self._sampling(name)) if entry else dict(self.run.sampling)
