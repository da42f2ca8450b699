import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.measures import grace_texts
from tasks.measures.grace import DIVERSITY, IDENTIFICATION, Axis, AxisScore, axes_of
from tasks.measures.latency import Times, summarise
from tasks.measures.markdown import inert, table
from tasks.measures.report import ReportExample, ReportModel, RunReport, render
from tasks.measures.statistics import Estimate

LATENCY = summarise(
    [
        Times(100.0, 100.25, 101.25, 101.5, 102.0, 104.0, 104.5, 21, 40),
        Times(101.0, 101.25, 102.25, 102.5, 103.0, 105.0, 105.5, 21, 40),
    ]
)
NASTY = "<script>alert(1)</script> | **b** [x](javascript:1) ![i](//h/p) `c`\n# head\n- item &lt; &amp; $x$ ~~s~~"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def report(**changes):
    rows = [("gpt2", idx, None, IDENTIFICATION, 0.9) for idx in range(40)]
    rows += [("gpt2", idx, None, DIVERSITY, 0.5) for idx in range(40)]
    facts = {
        "run": "r-1",
        "title": "Spring",
        "created": 0.0,
        "prompts": 40,
        "samples": 1,
        "sampling": {"temperature": 0.7, "stop": ["。"]},
        "touchstone": "1.0.0",
        "models": [ReportModel("gpt2", "abc123", 38, 1, 1, 0, LATENCY, {"torch": "2.13.0"}, {"temperature": 0.8})],
        "automatic": axes_of(rows),
    }
    return RunReport(**(facts | changes))


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_effective_settings_of_each_model_are_said() -> None:
    assert "gpt2, effective settings: temperature = 0\\.8" in render(report())
    assert "生效的设置: temperature = 0\\.8" in render(report(), "zh")


def test_what_a_reader_needs_is_there():
    text = render(report())
    assert text.startswith("# Touchstone report · Spring\n")
    assert "Created (UTC): 1970-01-01 00:00:00" in text
    assert "temperature = 0\\.7" in text and "abc123" in text and "torch: 2\\.13\\.0" in text
    assert "formula version 1" in text and "Known weakness" in text
    assert "no human ratings" in text


def test_axes_by_hand():
    row = cells(render(report()), "| gpt2 | – (")
    assert row[1] == "– (not enough data: needs at least 4 categories of at least 8 prompts)"
    assert row[2] == "4.00 \\[4.00, 4.00\\], n = 40"
    assert row[3] == "– (fluency F is not measured yet)"
    assert row[5] == "2.50 \\[2.50, 2.50\\], n = 40"


def test_latency_by_hand():
    text = render(report())
    assert cells(text, "| gpt2 | TTFT") == ["gpt2", "TTFT: first token − admitted", "0.5 / 0.5 / 0.5 / –", "2"]
    # 42 tokens and 80 characters in 3.5 busy seconds.
    assert cells(text, "| gpt2 | 12 ")[1:4] == ["12", "22.9", "0.571"]
    assert "cpu (TTFT ≤ 2 s, ms/character ≤ 100 ms)" in text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_both_languages_are_whole(language):
    text = render(report(human=axes_of([("gpt2", 0, None, IDENTIFICATION, 1.0)])), language)
    other = "en" if language == "zh" else "zh"
    for axis in Axis:
        for kind in ("name", "definition", "weakness"):
            assert grace_texts.text(f"{axis}.{kind}", language) in text
            assert grace_texts.text(f"{axis}.{kind}", other) not in text
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    assert len(headings) == len(set(headings)) == 13


def test_human_scores_stand_in_their_own_table():
    human = [AxisScore("gpt2", Axis.ARTISTRY, 1, Estimate(3.25, 3.0, 3.5, 12), "human.definition", "human.weakness")]
    text = render(report(human=human))
    automatic, rated = text.index("## GRACE: automatic"), text.index("## GRACE: human")
    assert automatic < rated < text.index("3.25 \\[3.00, 3.50\\], n = 12") < text.index("## Latency")
    assert "Mean of ratings" in text and "fewer than 30" in text


def test_limits_follow_the_data():
    assert "fewer than 30" not in render(report())
    assert "has not ended" not in render(report())
    assert "has not ended" in render(report(models=[ReportModel("m", "", 1, 0, 0, 3)]))


def test_an_empty_run_is_a_report_too():
    text = render(report(models=[], automatic=[], sampling={}))
    assert "## Models" in text and "Decoding settings: –" in text


def tags(text):
    return set(re.findall(r"<(\w+)", MARKDOWN.render(text)))


def filled_with(word):
    return report(
        run=word,
        title=word,
        sampling={word: word},
        touchstone=word,
        models=[ReportModel(word, word, 1, 0, 0, 0, LATENCY, {word: word})],
        automatic=[AxisScore(word, Axis.EFFICIENCY, 1, Estimate(1.0, 0.0, 2.0, 99), "E.definition", word, word)],
        examples=[ReportExample(word, {word: word})],
    )


def bars(text):
    return [line.count("|") - line.count("\\|") for line in text.splitlines()]


def test_text_from_outside_is_inert():
    plain, hostile = render(filled_with("word")), render(filled_with(NASTY))
    assert tags(hostile) == tags(plain) and bars(hostile) == bars(plain)
    assert MARKDOWN.render(hostile).count("&lt;script&gt;") == MARKDOWN.render(plain).count("word")


@given(st.text())
def test_inert_text_reads_as_itself_and_does_nothing(text):
    # A word before it keeps an empty text and block openers out of the way of the comparison.
    assert not set("<>") & set(inert(text))
    rendered = MARKDOWN.render("x" + inert(text))
    assert re.fullmatch(r"<p>[^<>]*</p>\n", rendered)
    table_html = MARKDOWN.render("\n".join(table(["h"], [["x" + inert(text)]])))
    assert table_html.count("<td>") == 1


@given(st.text(alphabet="ab&<>*_`|[]()#!\\~$ 春", max_size=30))
def test_inert_text_is_shown_as_it_was(text):
    shown = MARKDOWN.render("x" + inert(text)).removeprefix("<p>").removesuffix("</p>\n")
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, character)
    assert shown == "x" + " ".join(text.split())


def test_long_texts_are_cut_and_the_cut_is_marked():
    assert inert("春" * 10, 4) == "春春春春…"
    assert inert("春" * 4, 4) == "春春春春"


def test_direction_marks_are_gone():
    assert inert("a\u202eb\x00c") == "a b c"


def test_rows_must_fit_their_heads():
    with pytest.raises(ValueError, match="1 cells under 2"):
        table(["a", "b"], [["x"]])
