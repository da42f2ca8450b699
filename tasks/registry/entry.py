"""One model's entry in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """One model of the registry.

    ``source`` is a folder (absolute) or a hub id, ``cores`` the CPU cores its worker is pinned to (empty: chosen
    at start), ``slots`` how many completions run at once, ``deadline`` how many seconds one may take,
    ``max_context`` tokens of prompt and completion together (0: what the model was built for), ``template`` the text
    around a prompt, ``decoding`` its default settings.
    """

    name: str
    source: str
    revision: str | None = None
    device: str = "auto"
    cores: tuple[int, ...] = ()
    dtype: str = "auto"
    slots: int = 16
    max_context: int = 0
    deadline: float = 600.0
    template: str = "{prompt}"
    add_special_tokens: bool = True
    deterministic: bool = False
    decoding: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, str] = field(default_factory=dict)

    def render(self, prompt: str) -> str:
        """The text that the model sees for ``prompt``."""
        return self.template.replace("{prompt}", prompt)
