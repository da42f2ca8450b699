"""Keys of answers: every part of what decides an answer changes its key, and nothing else does."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.conversation import Message, Role
from tasks.ledger.records import Rendered
from tasks.registry import LocalModel, OpenAIModel
from tasks.sampling import Sampling
from tasks.settings import ROOT
from tests.backends.conftest import Opener
from tests.backends.told_server import MODEL, ToldServer
from worker.backends.answer_keys import LocalKeys
from worker.backends.contents import Contents
from worker.backends.identity import Weights
from worker.backends.protocol import Generation
from worker.backends.source import Source

FACTS = {"weights": {"folder": "w"}, "dtype": "float32", "engine": "continuous", "device_name": "p", "kernels": "k"}
RENDERED = Rendered("Hi", (1, 2, 3))
SAMPLING = Sampling(max_new_tokens=8, temperature=0.7, seed=3)
ENTRY = LocalModel(name="a", source="a")


def key(
    facts: Mapping[str, Any] = FACTS,
    context: int = 100,
    rendered: Rendered = RENDERED,
    sampling: Sampling = SAMPLING,
    sample: int = 0,
    apart: bool = False,
) -> str:
    return LocalKeys(facts, context).of_prompt(rendered, sampling, sample, apart)


@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_of_the_model_is_a_part(fact: str) -> None:
    assert key(FACTS | {fact: "another"}) != key()


@pytest.mark.parametrize("tokens", [(1, 2), (1, 2, 4), (3, 2, 1), (1, 2, 3, 0), ()])
def test_the_rendered_tokens_are_a_part(tokens: tuple[int, ...]) -> None:
    assert key(rendered=Rendered("Hi", tokens)) != key()


@pytest.mark.parametrize(
    "changed",
    [
        {"max_new_tokens": 9},
        {"temperature": 0.8},
        {"temperature": 0.0},
        {"top_k": 5},
        {"top_p": 0.9},
        {"repetition_penalty": 1.1},
        {"no_repeat_ngram": 2},
        {"stop": ("x",)},
        {"seed": 4},
    ],
    ids=str,
)
def test_every_setting_is_a_part(changed: dict[str, Any]) -> None:
    assert key(sampling=replace(SAMPLING, **changed)) != key()


def test_sample_and_way_of_answering_are_parts() -> None:
    assert len({key(), key(sample=1), key(apart=True)}) == 3


def test_a_seed_decides_nothing_where_nothing_is_left_to_chance() -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    assert key(sampling=greedy) == key(sampling=replace(greedy, seed=99))
    assert key(sampling=greedy) != key(sampling=greedy, sample=1)


def test_the_context_is_a_part_only_where_an_answer_may_fill_it() -> None:
    assert key(context=100) == key(context=1000)
    assert len({key(context=1000), key(context=10), key(context=9)}) == 3


def test_the_same_question_has_the_same_key_everywhere() -> None:
    assert key(dict(reversed(FACTS.items()))) == key() and len(key()) == 32
    assert key(rendered=Rendered("another text of the same tokens", (1, 2, 3))) == key()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(ROOT / "worker/demo/poet-small", tmp_path / "model"))


def identity(folder: Path, adapter: Path | None = None) -> dict[str, str] | None:
    return Weights.of(ENTRY, Source(folder), adapter).identify()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_whatever_changes_in_a_models_folder_it_is_another(folder: Path, name: str) -> None:
    before = identity(folder)
    (folder / "README.md").write_text("no part of it", encoding="utf-8")
    assert identity(folder) == before == identity(Path(shutil.copytree(folder, folder.with_name("copy"))))
    file = folder / name
    file.write_bytes(file.read_bytes() + b" ")
    assert identity(folder) not in (before, None)


def test_an_adapter_is_a_part_by_what_it_holds(folder: Path) -> None:
    adapter = folder.with_name("adapter")
    adapter.mkdir()
    known = [identity(folder)]
    for held in (b"one", b"two"):
        (adapter / "adapter_model.safetensors").write_bytes(held)
        known.append(identity(folder, adapter))
    assert len({str(one) for one in known}) == 3 and None not in known


def test_a_commit_stands_for_its_files(folder: Path) -> None:
    entry = LocalModel(name="a", source="owner/name")
    weights = [Weights.of(entry, Source(folder, commit=commit), None) for commit in ("c1", "c2")]
    assert weights[0].identify() == {"repository": "owner/name", "commit": "c1"} != weights[1].identify()
    assert not weights[0].files, "nothing has to be read"


def test_a_file_that_changes_after_it_was_loaded_is_nothing_to_go_by(folder: Path) -> None:
    seen = Contents.of(folder, ["config.json"])
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert seen.digest() is None


def test_a_gguf_file_is_known_by_its_content(folder: Path) -> None:
    file = folder / "a.gguf"
    file.write_bytes(b"one")
    first = Weights.of(ENTRY, Source(folder, "a.gguf"), None).identify()
    file.write_bytes(b"another")
    assert first is not None and Weights.of(ENTRY, Source(folder, "a.gguf"), None).identify() != first


def asked(opener: Opener, told: ToldServer, said: str = "Hi", sample: int = 0, **options: Any) -> str | None:
    """The key of a question to a server's model."""
    sampling = replace(SAMPLING, **options.pop("sampling", {}))
    opened = opener(**({"base_url": told.url, "revision": "r1"} | options))
    generation = Generation("a", (Message(Role.USER, said),), opened.entry, sampling, sample=sample)
    return opened.backend.prepare(generation).answer_key


def test_a_servers_answers_have_keys_only_where_its_owner_states_a_revision(told: ToldServer, opener: Opener) -> None:
    assert asked(opener, told, revision=None) is None
    assert asked(opener, told) == asked(opener, told) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"revision": "r2"},
        {"source": "owner/name"},
        {"api": "completions"},
        {"system": "Be brief."},
        {"thinking": False},
        {"said": "Ho"},
        {"sample": 1},
        {"sampling": {"seed": 4}},
        {"sampling": {"temperature": 0.8}},
        {"sampling": {"max_new_tokens": 9}},
        {"sampling": {"stop": ("1", "2", "3", "4", "5")}},
    ],
    ids=str,
)
def test_every_part_of_a_request_is_a_part_of_its_key(told: ToldServer, opener: Opener, changed: Any) -> None:
    assert asked(opener, told, **changed) not in (asked(opener, told), None)


def test_the_same_name_at_another_address_is_another_model(told: ToldServer, opener: Opener) -> None:
    elsewhere = told.url.replace("127.0.0.1", "localhost")
    assert elsewhere != told.url
    assert asked(opener, told, base_url=elsewhere) not in (asked(opener, told), None)


def test_what_a_server_turned_out_to_refuse_changes_no_key(told: ToldServer, opener: Opener) -> None:
    opened = opener(base_url=told.url, revision="r1")
    generation = Generation("a", (Message(Role.USER, "Hi"),), opened.entry, SAMPLING)
    before = opened.backend.prepare(generation).answer_key
    opened.backend.server.parameters.refused.add("seed")
    assert opened.backend.prepare(generation).answer_key == before


def test_a_revision_tells_models_of_a_server_apart_and_changes_no_identity_where_it_is_not_given() -> None:
    def made(**keys: Any) -> OpenAIModel:
        return OpenAIModel(name=MODEL, backend="openai", base_url="http://127.0.0.1:1", **keys)

    assert made(revision="r1").identity not in (made(revision="r2").identity, made().identity)
    assert made().identity == "3fe8469226126a45"  # as before there were revisions
    assert made(revision="r1").effective({})["revision"] == "r1" and "revision" not in made().effective({})
