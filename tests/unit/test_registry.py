"""models.toml: what is read, and errors that name line, key and remedy."""

from pathlib import Path

import pytest

from tasks.errors import ConfigurationError, NotFound
from tasks.host.up import share_cores
from tasks.registry import LocalModel, Registry
from tasks.settings import ROOT


def load(tmp_path: Path, text: str) -> Registry:
    (tmp_path / "m").mkdir(exist_ok=True)
    file = tmp_path / "models.toml"
    file.write_text(text, encoding="utf-8")
    return Registry.load(file)


GOOD = '[[model]]\nname = "a"\nsource = "m"\n'


def test_a_model_is_read_with_its_defaults(tmp_path: Path) -> None:
    registry = load(tmp_path, GOOD + 'template = "Q: {prompt}\\n"\ndecoding = { stop = ["x"], top_k = 3 }\n')
    spec = registry.get("a")
    assert isinstance(spec, LocalModel)
    assert (spec.source, spec.location) == ("m", str(tmp_path / "m"))
    assert spec.template == "Q: {prompt}\n"
    assert spec.decoding == {"stop": ("x",), "top_k": 3}
    assert spec.text("label", "zh") == "a" and spec.text("description", "en") == ""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "no model is defined"),
        ("[[model]\n", None, "line 1"),
        ("speed = 1\n" + GOOD, 1, "unknown key 'speed'"),
        (GOOD + 'devise = "cpu"\n', 4, "did you mean 'device'"),
        (GOOD + 'device = "gpu"\n', 4, "cuda:0"),
        (GOOD + "slots = 0\n", 4, "1 to 1024"),
        (GOOD + "deadline = 0\n", 4, "seconds above 0"),
        (GOOD + "deadline = true\n", 4, "seconds above 0"),
        (GOOD + 'dtype = "int3"\n', 4, "float32"),
        (GOOD + 'template = "no place"\n', 4, "{prompt}"),
        (GOOD + "cores = 2\n", 4, "list of core numbers"),
        (GOOD + "decoding = { temperature = 9 }\n", 4, "0 to 5"),
        (GOOD + "deterministic = 1\n", 4, "true or false"),
        (GOOD + 'label = { fr = "x" }\n', 4, "table such as"),
        (GOOD + GOOD, 5, "names must differ"),
        ('[[model]]\nname = "A b"\nsource = "m"\n', 2, "lower-case"),
        (GOOD + 'backend = "vllm"\n', 4, "local, openai"),
        (GOOD + 'registry_folder = "/"\n', 4, "registry_folder"),
        (GOOD.replace('source = "m"', 'backend = "openai"'), 1, "either base_url"),
        (GOOD + 'backend = "openai"\nbase_url = "http://x"\nserve = ["y"]\n', 5, "either base_url"),
        (GOOD + 'backend = "openai"\nbase_url = "http://x"\nslots = 3\n', 6, "slots"),
        (GOOD + "decoding = { temprature = 1 }\n", 4, "did you mean 'temperature'"),
        ('[[model]]\nname = "a"\n', 1, "source is missing"),
    ],
)
def test_an_error_says_where_and_what(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, text)
    assert words in raised.value.message and "models.toml" in raised.value.message
    if line:
        assert f"models.toml:{line}:" in raised.value.message


def test_the_shipped_registries_are_valid() -> None:
    assert Registry.load(ROOT / "models.toml").names == ["poet-large", "poet-small"]
    hub = Registry.load(ROOT / "models.hub.toml")
    assert [spec.source for spec in hub.models.values()] == [
        "IDEA-CCNL/Wenzhong-GPT2-110M",
        "uer/gpt2-chinese-cluecorpussmall",
        "distilbert/distilgpt2",
    ]


def test_choosing_names_keeps_order_and_refuses_strangers(tmp_path: Path) -> None:
    registry = load(tmp_path, GOOD + GOOD.replace('"a"', '"b"'))
    assert registry.choose(None) == ["a", "b"]
    assert registry.choose(["b", "a", "b"]) == ["b", "a"]
    with pytest.raises(NotFound, match="a, b"):
        registry.choose(["c"])


def test_cores_are_shared_out() -> None:
    two = [LocalModel(name="a", source="."), LocalModel(name="b", source=".")]
    assert share_cores(two, [0, 1, 2, 3, 4]) == {"a": (0, 1), "b": (2, 3, 4)}
    assert share_cores(two, [7]) == {"a": (7,), "b": (7,)}
    assert share_cores([LocalModel(name="a", source=".", cores=(5,)), two[1]], [0, 1]) == {"a": (5,), "b": (0, 1)}
