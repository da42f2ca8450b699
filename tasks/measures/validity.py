"""Whether an answer is one at all: there, in the right script, without a loop, no echo, finished."""

import re
from collections import Counter
from collections.abc import Iterable

from tasks.measures.diversity import HAN, repetition, units
from tasks.states import FinishReason, Outcome

# In 646 reference answers of AlignBench rep-4 was above 0.5 in less than 1%; a loop soon passes 0.9.
REPETITION_LIMIT = 0.5
SCRIPT_SHARE = 0.5
ECHO_SHARE = 0.8
ECHO_COVER = 0.5
ECHO_ORDER = 4
MIN_ECHO = 4
_KANA = r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_SCRIPTS = {
    "han": re.compile(f"[{HAN}]"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "kana": re.compile(f"[{_KANA}]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
}
_LETTER = re.compile(r"[^\W\d_]")
_BROKEN = re.compile(r"[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f]")
_OTHER_LANGUAGE = re.compile(
    r"翻译|[译英法德日韩俄中]文|[英法德日韩俄汉]语|拼音|代码|编程|程序|函数|正则|sql|python|java\b|code|program|function"
    r"|translat|\b(?:english|chinese|mandarin|french|german|japanese|korean|russian|spanish|pinyin)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[。！？!?…；\n]|\.(?=\s|$|[\"'”’)])")


def strip_echo(text: str, prompt: str) -> str:
    """The answer without the prompt at its beginning, white space ignored.

    A prompt of fewer than four characters stays: an answer may well begin with such a word of its own accord.
    """
    wanted = "".join(prompt.split())
    if len(wanted) < MIN_ECHO:
        return text
    matched = 0
    for position, character in enumerate(text):
        if character.isspace():
            continue
        if character != wanted[matched]:
            return text
        matched += 1
        if matched == len(wanted):
            return text[position + 1 :]
    return text


def is_valid(prompt: str, answer: str, finish_reason: FinishReason) -> bool:
    """All five conditions; ``answer`` has been through `strip_echo`."""
    return bool(
        answer.strip()
        and is_finished(answer, finish_reason)
        and has_right_script(prompt, answer)
        and (repetition(units(answer), 4) or 0.0) <= REPETITION_LIMIT
        and not is_echo(prompt, answer)
    )


def is_finished(answer: str, finish_reason: FinishReason) -> bool:
    """Ended by itself, or cut by a limit of length after at least one whole sentence.

    The limit is the asker's choice, and a model that continues text never ends by itself.
    """
    if finish_reason in (FinishReason.LENGTH, FinishReason.CONTEXT):
        return _SENTENCE_END.search(answer.strip()) is not None
    return finish_reason.outcome is Outcome.DONE


def has_right_script(prompt: str, answer: str) -> bool:
    """At least half of the answer's letters are of scripts that the prompt uses; broken characters are of none.

    A prompt that names a language or asks for code, and an answer without letters such as a number, pass.
    """
    if _OTHER_LANGUAGE.search(prompt):
        return not _BROKEN.search(answer)
    asked = _letters(prompt)
    found = _letters(answer)
    total = sum(found.values()) + len(_BROKEN.findall(answer))
    if not total or not asked:
        return not _BROKEN.search(answer)
    expected = [script for script, number in asked.items() if number >= 0.1 * sum(asked.values())]
    return sum(found[script] for script in expected) >= SCRIPT_SHARE * total


def is_echo(prompt: str, answer: str) -> bool:
    """The answer is made of the prompt: most of its 4-grams come from it, and they are much of the prompt.

    The second condition spares answers that quote a passage they were asked about.
    """
    asked, said = _ngrams(units(prompt)), _ngrams(units(answer))
    if not asked or not said:
        return units(prompt) == units(answer)
    shared = sum(number for gram, number in said.items() if gram in asked)
    return shared >= ECHO_SHARE * said.total() and len(said.keys() & asked.keys()) >= ECHO_COVER * len(asked)


def _letters(text: str) -> Counter[str]:
    counts = Counter({script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()})
    counts["unknown"] = max(0, len(_LETTER.findall(text)) - counts.total())
    return counts


def _ngrams(tokens: list[str]) -> Counter[tuple[str, ...]]:
    grams: Iterable[tuple[str, ...]] = zip(*(tokens[i:] for i in range(ECHO_ORDER)), strict=False)
    return Counter(grams)
