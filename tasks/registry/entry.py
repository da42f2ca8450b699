"""One model's entry in the registry, a class a kind of backend; its snapshot is stored with every run."""

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tasks.errors import InvalidInput
from tasks.sampling import check_settings, merge
from tasks.schema import Characters, Flag, Said, Schema, Seconds, one_of, whole

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DEVICE = re.compile(r"auto|cpu|cuda:\d+")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
LANGUAGES = ("zh", "en")
PRICES = ("input", "output")
MODELSCOPE = "modelscope:"
MAX_SLOTS = 1024


class BackendKind(StrEnum):
    """What computes a model's answers: the engine in this package, or a server that speaks OpenAI's interface."""

    LOCAL = "local"
    OPENAI = "openai"


class Template(StrEnum):
    """How a conversation becomes a prompt where no text of one's own is given."""

    CHAT = "chat"  # by the tokenizer's chat template
    PLAIN = "plain"  # its messages' texts, joined by blank lines


class Dtype(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Api(StrEnum):
    """Which of the interface's two ways of asking a server is used."""

    CHAT = "chat"
    COMPLETIONS = "completions"


def _matching(pattern: re.Pattern[str], wanted: str) -> BeforeValidator:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise PydanticCustomError("pattern", "is {value}; use {wanted}", {"value": repr(value), "wanted": wanted})
        return value

    return BeforeValidator(check)


def _template(value: Any) -> Any:
    if value is None or (isinstance(value, str) and (value in set(Template) or value.count("{prompt}") == 1)):
        return value
    raise PydanticCustomError("template", "must be 'chat', 'plain' or a text with {{prompt}} exactly once")


def _decoding(value: Any) -> dict[str, Any]:
    return check_settings(value, "decoding")


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(k in LANGUAGES and isinstance(v, str) for k, v in value.items()):
        raise PydanticCustomError("texts", 'must be a table such as {{ zh = "诗人", en = "Poet" }}')
    return dict(value)


def _base_url(value: Any) -> str:
    """Nothing that may hold a secret: neither may become part of an entry, which is stored with every run."""
    parts = urlsplit(value) if isinstance(value, str) and len(value) <= 1000 else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or _port(parts) is None:
        raise PydanticCustomError("base_url", "must be an address such as 'https://api.example.com/v1'")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise PydanticCustomError("base_url", "must have no user, password or query; name the key's variable: key_env")
    return str(value).rstrip("/")


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or 0
    except ValueError:
        return None


def _key_env(value: Any) -> str:
    # The value is not repeated in the error: it may be the key itself.
    if not isinstance(value, str) or not VARIABLE.fullmatch(value):
        raise PydanticCustomError("key_env", "must name a variable such as EXAMPLE_API_KEY, and never be the key")
    return value


def _price(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping) and value.keys() <= set(PRICES):
        amounts = value.values()
        if all(isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one < 1e9 for one in amounts):
            return {key: float(one) for key, one in value.items()}
    raise PydanticCustomError("price", "must be a table such as {{ input = 0.5, output = 1.5 }}, per million tokens")


Cores = Annotated[tuple[Annotated[int, whole(0, 4095)], ...], Said("must be a list of core numbers such as [0, 1]")]
Name = Annotated[str, _matching(NAME, "lower-case letters, digits, '.', '_' and '-'")]
Device = Annotated[str, _matching(DEVICE, "'auto', 'cpu' or 'cuda:0'")]
Line = Annotated[str, Characters(1000, 1)]
Texts = Annotated[dict[str, str], BeforeValidator(_texts)]


class Entry(Schema):
    """What the entries of all backends have in common.

    ``template`` is a `Template`, a text around ``{prompt}``, or None: `Template.CHAT` where there is a chat template.
    ``system`` is the system message of conversations that bring none, ``thinking`` switches it on or off where the
    template knows it. ``deadline`` is how many seconds one completion may take, ``decoding`` the default settings,
    ``cores`` the CPU cores its worker is pinned to (empty: chosen at start).
    """

    name: Name
    backend: BackendKind
    template: Annotated[str | None, BeforeValidator(_template)] = None
    system: Annotated[str, Characters(32_000, 1)] | None = None
    thinking: Flag | None = None
    deadline: Annotated[float, Seconds(86_400)] = 600.0
    decoding: Annotated[dict[str, Any], BeforeValidator(_decoding)] = Field(default_factory=dict)
    device: Device = "auto"
    cores: Cores = ()
    label: Texts = Field(default_factory=dict)
    description: Texts = Field(default_factory=dict)
    registry_folder: Path = Field(default=Path(), exclude=True)

    identity_fields: ClassVar[tuple[str, ...]] = ("backend",)
    # Fields that came later are a part of it where they say something: what older runs were made with stays the same.
    later_identity_fields: ClassVar[tuple[str, ...]] = ()

    def text(self, kind: Literal["label", "description"], language: str) -> str:
        """Label or description in a language; a model without a label is called by its name."""
        texts: dict[str, str] = getattr(self, kind)
        return texts.get(language, self.name if kind == "label" else "")

    @property
    def identity(self) -> str:
        """Digest of what decides which model answers, however its prompts are rendered and wherever it runs."""
        return hashlib.sha256(json.dumps(self._identifying, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _identifying(self) -> dict[str, Any]:
        later = {name: value for name in self.later_identity_fields if (value := getattr(self, name)) is not None}
        return {name: getattr(self, name) for name in self.identity_fields} | later

    def effective(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """What a completion with these settings of its run is made with, as JSON values; None is the model's own way.

        The seed is that of the run: each completion's own follows from it.
        """
        settings = merge(self.decoding, sampling).to_dict()
        return (
            self._identifying | {"template": self.template, "system": self.system, "thinking": self.thinking} | settings
        )

    def snapshot(self) -> dict[str, Any]:
        """The entry as JSON values, as it is stored with a run; `entry_of` reads it."""
        return self.model_dump(mode="json", exclude_none=True)


class LocalModel(Entry):
    """A model of our own engine, over transformers and torch.

    ``source`` is a folder, a ``.gguf`` file, a hub id, or ``modelscope:OWNER/NAME``; ``gguf_file`` a file within it;
    ``adapter`` a PEFT adapter's folder or hub id. ``slots`` is how many completions run at once,
    ``max_context`` tokens of prompt and completion together (0: what the model was built for).
    """

    backend: Literal[BackendKind.LOCAL] = BackendKind.LOCAL
    source: Line
    gguf_file: Line | None = None
    revision: Annotated[str, Said("must be a text: a branch, tag or commit")] | None = None
    adapter: Line | None = None
    dtype: Annotated[Dtype, one_of(*Dtype)] = Dtype.AUTO
    slots: Annotated[int, whole(1, MAX_SLOTS)] = 16
    max_context: Annotated[int, whole(0, 1_048_576)] = 0
    add_special_tokens: Flag = True
    deterministic: Flag = False

    identity_fields: ClassVar[tuple[str, ...]] = ("backend", "source", "gguf_file", "revision", "adapter")

    @property
    def location(self) -> str:
        """Where ``source`` leads: an absolute path, a hub id, or ``modelscope:OWNER/NAME``."""
        return _located(self.source, self.registry_folder)

    @property
    def adapter_location(self) -> str | None:
        return None if self.adapter is None else _located(self.adapter, self.registry_folder)


class OpenAIModel(Entry):
    """A model of a server that speaks OpenAI's interface: at ``base_url``, or started by the worker with ``serve``.

    ``model`` is its name there (default: the entry's own), ``key_env`` the name of the variable that holds the key,
    ``revision`` what its owner calls the state of the model there (only with one are answers stored to be used again),
    ``price`` what a million tokens cost, ``tokenizer`` a folder or a ``tokenizer.json`` to count tokens with where the
    server tells no usage, ``private`` whether an address of a private network may be asked, ``timeout`` how many
    seconds the server may take to send a byte. In ``serve``, ``{source}``, ``{port}`` and ``{slots}`` are filled in.
    """

    backend: Literal[BackendKind.OPENAI]
    base_url: Annotated[str, BeforeValidator(_base_url)] | None = None
    serve: Annotated[tuple[Line, ...], Said("must be a list of words such as ['vllm', 'serve', '{source}']")] = ()
    source: Line | None = None
    model: Line | None = None
    revision: Line | None = None
    api: Annotated[Api, one_of(*Api)] = Api.CHAT
    key_env: Annotated[str, BeforeValidator(_key_env)] | None = None
    concurrency: Annotated[int, whole(1, MAX_SLOTS)] = 8
    timeout: Annotated[float, Seconds(3600)] = 60.0
    price: Annotated[dict[str, float], BeforeValidator(_price)] = Field(default_factory=dict)
    tokenizer: Line | None = None
    private: Flag = False

    identity_fields: ClassVar[tuple[str, ...]] = ("backend", "source", "model", "api")
    later_identity_fields: ClassVar[tuple[str, ...]] = ("revision",)

    @model_validator(mode="after")
    def _fits_together(self) -> "OpenAIModel":
        """Raises `InvalidInput` that names the key which contradicts another."""
        words = " ".join(self.serve)
        if self.serve and not self.base_url and "{port}" not in words:
            raise InvalidInput("serve must pass the port, such as '--port', '{port}'.", "serve")
        if "{source}" in words and self.source is None:
            raise InvalidInput("serve names {source}, which the entry does not give; add source.", "serve")
        if self.api is Api.CHAT and self.template not in (None, Template.CHAT):
            raise InvalidInput("template is the server's own with api = 'chat'; use api = 'completions'.", "template")
        if self.api is Api.COMPLETIONS:
            if self.template == Template.CHAT:
                raise InvalidInput("template 'chat' needs api = 'chat'; 'completions' sends plain text.", "template")
            for key in ("system", "thinking"):
                if getattr(self, key) is not None:
                    raise InvalidInput(f"{key} needs api = 'chat'; 'completions' sends plain text.", key)
        return self

    @property
    def slots(self) -> int:
        return self.concurrency

    @property
    def location(self) -> str | None:
        """Where ``source`` leads: an absolute path or a hub id."""
        return None if self.source is None else _located(self.source, self.registry_folder)

    @property
    def tokenizer_location(self) -> Path | None:
        return None if self.tokenizer is None else (self.registry_folder / self.tokenizer).resolve()


ModelEntry = LocalModel | OpenAIModel
KINDS: dict[str, type[LocalModel] | type[OpenAIModel]] = {"local": LocalModel, "openai": OpenAIModel}


def entry_of(snapshot: Mapping[str, Any]) -> ModelEntry:
    """The entry that `Entry.snapshot` gave."""
    return KINDS[snapshot["backend"]].model_validate(dict(snapshot))


def _located(source: str, folder: Path) -> str:
    if source.startswith(MODELSCOPE):
        return source
    place = (folder / source).resolve()
    is_path = source.startswith((".", "/", "~")) or source.endswith(".gguf") or source.count("/") != 1
    return str(place) if is_path or place.exists() else source
