"""Incremental text against decoding everything at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.engine.tiny import byte_tokenizer, character_tokenizer
from worker.engine.detokenizer import Detokenizer


def bert_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"春眠不觉晓，。", "hello", "wor", "##ld", "##s", ",", "."]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Words marked by a leading space that decoding drops at the start, with single bytes for the unknown."""
    words = ["<unk>", "▁the", "▁cat", "s", "▁", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def show(tokenizer: Any, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    made = Detokenizer(tokenizer, stop)
    shown = [made.push(token) for token in tokens if not made.stopped] + [made.finish()]
    assert "".join(shown) == made.text
    assert not any("\ufffd" in text for text in shown)
    return shown


@given(st.text(min_size=1, max_size=30).filter(lambda text: "\ufffd" not in text))
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_text_comes_out_as_it_is(text: str) -> None:
    tokenizer = byte_tokenizer()
    assert "".join(show(tokenizer, tokenizer(text)["input_ids"])) == text


def torn_texts() -> st.SearchStrategy[list[int]]:
    """Tokens of characters of one to four bytes, some of which are missing."""
    tokenizer = byte_tokenizer(257)
    tokens = st.text("春眠🙂é۴a", max_size=15).map(lambda text: list(tokenizer(text)["input_ids"]))
    return tokens.flatmap(lambda whole: st.sets(st.integers(0, 60)).map(lambda gone: _without(whole, gone)))


def _without(tokens: list[int], gone: set[int]) -> list[int]:
    return [token for at, token in enumerate(tokens) if at not in gone]


@given(st.lists(st.integers(1, 256), max_size=40) | torn_texts())
@hypothesis_settings(max_examples=400, deadline=None)
def test_any_bytes_lose_no_more_than_what_is_no_character(tokens: list[int]) -> None:
    tokenizer = byte_tokenizer(257)
    assert "".join(show(tokenizer, tokens)) == tokenizer.decode(tokens).replace("\ufffd", "")


def test_a_character_is_shown_with_its_last_byte() -> None:
    tokenizer = byte_tokenizer()
    assert show(tokenizer, tokenizer("春🙂")["input_ids"]) == ["", "", "春", "", "", "", "🙂", ""]


@pytest.mark.parametrize("text", ["春眠不觉晓，。", "hello world", "春hello worlds. 眠"])
def test_words_of_bert_are_joined_as_people_write(text: str) -> None:
    tokenizer = bert_tokenizer()
    shown = show(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "".join(shown) == text.replace(". 眠", ".眠")
    with_marks = show(tokenizer, tokenizer(text)["input_ids"])
    assert "".join(with_marks) == "".join(shown)


def test_words_with_leading_spaces_keep_them() -> None:
    tokenizer = spaced_tokenizer()
    tokens = [1, 2, 3, 1, 5 + 0xE6, 5 + 0x98, 5 + 0xA5, 2]
    assert "".join(show(tokenizer, tokens)) == tokenizer.decode(tokens) == "the cats the春 cat"


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
@hypothesis_settings(deadline=None)
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    tokenizer = character_tokenizer()
    shown = show(tokenizer, tokenizer(text)["input_ids"] if text else [], tuple(stops))
    ends = [i for i in range(len(text) + 1) if any(text[:i].endswith(stop) for stop in stops)]
    first = min([len(text)] + [ends[0] - len(stop) for stop in stops if ends and text[: ends[0]].endswith(stop)])
    assert "".join(shown) == text[:first]


def test_the_start_of_a_stop_string_is_held_back() -> None:
    tokenizer = character_tokenizer()
    assert show(tokenizer, tokenizer("abcabd")["input_ids"], ("abd",)) == ["", "", "abc", "", "", "", ""]
    assert show(tokenizer, tokenizer("cab")["input_ids"], ("abd",)) == ["c", "", "", "ab"]
