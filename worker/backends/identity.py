"""What tells a loaded model from any other that would answer otherwise: its weights, and what computes with them."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tasks.registry import LocalModel
from tasks.version import VERSION
from worker.backends.answer_keys import LocalKeys
from worker.backends.contents import Contents
from worker.backends.device import device_name
from worker.backends.local import LocalBackend
from worker.backends.source import ADAPTER_FILES, Source, needed_files
from worker.engine import processor
from worker.engine.native import Native

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A model's weights, tokenizer and adapter: a commit of a hub's, or files as they were before they were read."""

    facts: Mapping[str, str]
    files: Mapping[str, Contents]

    @classmethod
    def of(cls, entry: LocalModel, source: Source, adapter: Path | None) -> "Weights":
        facts: dict[str, str] = {}
        files: dict[str, Contents] = {}
        if source.gguf_file is not None:
            files["gguf"] = Contents.of(source.folder, [source.gguf_file])
        elif source.commit is not None:
            facts |= {"repository": entry.location, "commit": source.commit}
        else:
            files["folder"] = Contents.of(source.folder, needed_files([path.name for path in source.folder.iterdir()]))
        if adapter is not None:
            files["adapter"] = Contents.of(adapter, ADAPTER_FILES)
        return cls(facts, files)

    def identify(self) -> dict[str, str] | None:
        """Facts that no other weights have; None where a file has changed since. Raises `OSError`.

        Where it lies and how a GGUF file is called does not matter.
        """
        digests = {part: contents.digest() for part, contents in self.files.items()}
        known = {part: digest for part, digest in digests.items() if digest is not None}
        return dict(self.facts) | known if len(known) == len(digests) else None


def kernel_class(device: torch.device, kernels: Native | None) -> dict[str, Any]:
    """What the last bits of a result depend on, besides the weights: processor, kernels and versions.

    How many threads compute and what shares a step is left out: that is chance from one run to the next anyway.
    """
    return {
        "backend": "local",
        "device": device.type,
        "device_name": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None,
        "processor": str(processor.chosen()),
        # Its name says which sources, compiler and processor it was made of and for.
        "kernels": None if kernels is None else Path(kernels.library._name).name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "touchstone": VERSION,
    }


def find_keys(backend: LocalBackend, weights: Weights, facts: Mapping[str, Any], context: int) -> None:
    """Let a backend know the keys of its answers, at once or as soon as files have been read, which is done beside."""

    def find() -> None:
        try:
            known = weights.identify()
        except OSError as error:
            logger.warning("answers are not stored to be used again: the weights cannot be read once more: %s", error)
            return
        if known is None:
            logger.warning("answers are not stored to be used again: the model's files have changed; start its worker")
            return
        backend.keys = LocalKeys(dict(facts) | {"weights": known}, context)

    if weights.files:
        threading.Thread(target=find, name="digest", daemon=True).start()
    else:
        find()
