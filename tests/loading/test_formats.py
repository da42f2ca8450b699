"""Every format of weights that a model comes in gives the tokens of the model that was saved."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tasks.registry.inspection import Format, inspect
from tasks.states import LoadStage
from tests.engine.tiny import character_tokenizer, expect, reference_model
from tests.loading.checkpoints import CONTEXT, Reports, ask, opened, save, write_gguf
from worker.backends import gguf

PROMPTS = ["abc", "the quick fox", "春夏秋冬"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(("bin_file", "shards"), [(False, 1), (False, 3), (True, 1), (True, 3)])
def test_weights_in_each_format_give_the_same_tokens(tmp_path: Path, kind: str, bin_file: bool, shards: int) -> None:
    folder = save(tmp_path, kind, bin_file=bin_file, shards=shards)
    assert len(list(folder.glob("*.bin" if bin_file else "*.safetensors"))) >= shards
    reports = Reports()
    entry, backend = opened(folder, reports)
    for prompt in PROMPTS:
        shown, answer = ask(entry, backend, prompt)
        assert answer.text == expect(kind, prompt, 8) == shown
    facts = backend.description.facts
    assert facts["format"] == (Format.BIN if bin_file else Format.SAFETENSORS)
    assert facts["parameters"] == reference_model(kind).num_parameters()
    assert (facts["context"], facts["chat_template"], facts["adapter"]) == (64, False, False)
    assert facts["memory"] > 0 and facts["memory_needed"] > facts["weights_bytes"]
    stages = list(dict.fromkeys(stage for stage, _ in reports.stages if stage is not LoadStage.BUILDING_KERNELS))
    assert stages == [LoadStage.READING, LoadStage.PREPARING, LoadStage.WARMING_UP]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf")


@pytest.fixture(scope="module")
def converted(gguf_file: Path) -> Iterator[list[Path]]:
    """Folders of three workers that convert one file at once, in a cache of their own."""
    folders: list[Path] = []

    def convert() -> None:
        folders.append(gguf.converted(gguf_file, inspect(gguf_file), "float32", Reports()))

    with pytest.MonkeyPatch.context() as patch:
        # Not by XDG_CACHE_HOME: the kernels that are built already lie there.
        patch.setattr(gguf, "cache_folder", lambda: gguf_file.parent / "cache")
        threads = [threading.Thread(target=convert) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield folders


def test_workers_that_convert_at_once_get_one_whole_folder(converted: list[Path]) -> None:
    assert len(converted) == 3 and len(set(converted)) == 1
    assert inspect(converted[0]).format is Format.SAFETENSORS and inspect(converted[0]).chat_template
    assert not list(converted[0].parent.glob("*.unfinished"))


def test_a_gguf_file_gives_its_own_tokens(gguf_file: Path, converted: list[Path]) -> None:
    reports = Reports()
    entry, backend = opened(gguf_file, reports, template="chat")
    assert LoadStage.CONVERTING not in dict(reports.stages), "it is converted already"
    place = {"gguf_file": gguf_file.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, **place)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    for prompt in ("the cat sat", "春"):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        shown, answer = ask(entry, backend, prompt)
        assert answer.rendered is not None and list(answer.rendered.tokens or ()) == ids[0].tolist()
        whole = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer.text == shown == whole.replace("\ufffd", ""), "a backend tells no half characters"
    facts = backend.description.facts
    assert (facts["format"], facts["context"], facts["chat_template"]) == ("gguf", CONTEXT, True)


def test_a_gguf_file_is_known_by_its_content(gguf_file: Path, converted: list[Path]) -> None:
    moved = gguf_file.with_name("moved.gguf")
    moved.write_bytes(gguf_file.read_bytes())
    before = converted[0].stat().st_mtime_ns
    reports = Reports()
    assert gguf.converted(moved, inspect(moved), "float32", reports) == converted[0]
    assert converted[0].stat().st_mtime_ns == before and reports.shares(LoadStage.CONVERTING)


def test_what_is_known_of_a_file_ends_with_its_content(tmp_path: Path, converted: list[Path]) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"one")
    first = gguf.digest(file, Reports())
    told = Reports()
    assert gguf.digest(file, told) == first and not told.stages
    file.write_bytes(b"other")
    assert gguf.digest(file, Reports()) != first


def test_an_adapter_is_merged_into_the_weights(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "llama")
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"])
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 2)
    tuned.save_pretrained(tmp_path / "adapter")
    entry, backend = opened(base, adapter=str(tmp_path / "adapter"))
    plain = [expect("llama", prompt, 8) for prompt in PROMPTS]
    tokenizer, found = character_tokenizer(), []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = tuned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        found.append(ask(entry, backend, prompt)[1].text)
        assert found[-1] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert found != plain and backend.description.facts["adapter"] is True


def test_the_entry_may_make_the_context_smaller_but_not_larger(tmp_path: Path) -> None:
    folder = save(tmp_path)
    assert opened(folder, max_context=20)[1].description.facts["context"] == 20
    assert opened(folder, max_context=2000)[1].description.facts["context"] == 64


def test_each_dtype_is_what_it_says(tmp_path: Path) -> None:
    folder = save(tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32"
    assert opened(folder, dtype="bfloat16")[1].description.dtype == "bfloat16"
