import json
import statistics as plain
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures import grace_texts
from tasks.measures.diversity import diversity, repetition, units
from tasks.measures.grace import (
    DIVERSITY,
    IDENTIFICATION,
    VALID,
    Answer,
    Axis,
    StoredScore,
    axes_of,
    goodput_metric,
    score_answer,
    validity_by_category,
)
from tasks.measures.identification import MIN_POOL, POOL_FILE, Pool, identification, pool
from tasks.measures.latency import CPU, GPU, Phases
from tasks.measures.statistics import wilson
from tasks.measures.validity import has_right_script, is_echo, is_finished, is_valid, strip_echo
from tasks.states import FinishReason

SPRING = "写一首关于春天的诗"
POEM = "春风拂过小河边，柳絮轻轻落满船。花开一树山如画，诗在心头月在天。"
FAST = Phases(ttft=0.2, ms_a_character=20.0, output_tokens=30, characters=30)


def test_units_are_characters_words_and_marks():
    assert units("春天 Don't go, 42!") == ["春", "天", "don't", "go", ",", "42", "!"]


def test_repetition_by_hand():
    # the cat / cat the / the cat: 2 different of 3.
    assert repetition(units("the cat the cat"), 2) == pytest.approx(1 / 3)
    assert repetition(units("the cat"), 3) is None


def test_diversity_by_hand():
    # 春×5: 1 of 4 bigrams, 1 of 3 trigrams, 1 of 2 four-grams are different.
    assert diversity("春春春春春") == pytest.approx(1 / 4 * 1 / 3 * 1 / 2)
    assert diversity("the cat the cat") == pytest.approx(2 / 3)
    assert diversity("天地玄黄宇宙洪荒") == 1
    assert diversity("天地玄") is None


@given(st.text(max_size=60))
def test_diversity_is_a_share_and_repeating_never_raises_it(text):
    once = diversity(text)
    if once is not None:
        assert 0 <= once <= 1
        assert diversity(text + " " + text) <= once


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("写一首关于春天的诗，好吗", "，好吗"),
        ("写 一 首 关 于 春 天 的 诗 春 风", " 春 风"),
        ("  写一首关于春天的诗\n春风", "\n春风"),
        ("写一首关于冬天的诗", "写一首关于冬天的诗"),
        ("写一首", "写一首"),
        ("", ""),
    ],
)
def test_the_echoed_prompt_is_stripped(text, rest):
    assert strip_echo(text, SPRING) == rest


def test_a_short_prompt_is_no_echo():
    assert strip_echo("你好！", "你好") == "你好！"


@given(st.text(min_size=1), st.text())
def test_stripping_takes_the_prompt_or_nothing(prompt, text):
    rest = strip_echo(text, prompt)
    assert rest == text or "".join(text[: len(text) - len(rest)].split()) == "".join(prompt.split())


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        (SPRING, POEM, True),
        (SPRING, "Spring is coming to the river and I am glad.", False),
        ("What is spring?", "A season.", True),
        ("What is spring?", "春天是一个季节。", False),
        ("把“春天”翻译成英语", "Spring", True),
        ("17 + 4 等于多少？", "21", True),
        (SPRING, "春" + "\ufffd" * 3, False),
        (SPRING, "はるがきたよ", False),
        ("用 Python 写一个函数", "def f(): return 1", True),
    ],
)
def test_script_follows_the_prompt(prompt, answer, right):
    assert has_right_script(prompt, answer) is right


@pytest.mark.parametrize(
    ("reason", "answer", "finished"),
    [
        (FinishReason.STOP, "春天", True),
        (FinishReason.STOP_STRING, "春天", True),
        (FinishReason.LENGTH, "春天来了。然后", True),
        (FinishReason.LENGTH, "春天来了然后", False),
        (FinishReason.LENGTH, "about 3.5 metres and", False),
        (FinishReason.CONTEXT, "It is. And", True),
        (FinishReason.DEADLINE, "春天来了。", False),
        (FinishReason.CANCELLED, "春天来了。", False),
    ],
)
def test_finished(reason, answer, finished):
    assert is_finished(answer, reason) is finished


def test_an_echo_is_the_prompt_again_and_a_quotation_is_none():
    question = "法国的首都是哪里？请说明理由。"
    assert is_echo(question, question * 3)
    assert not is_echo(question, "法国的首都是巴黎，因为政府在那里。")
    passage = "请从下文中找出地名：" + "小明昨天坐火车从北京到上海，又乘船去了宁波，在那里住了三天才回家。" * 2
    assert not is_echo(passage, "从北京到上海")


@pytest.mark.parametrize("answer", ["", "  \n", "春风" * 40, SPRING + SPRING, "Only English here, my friend."])
def test_each_fault_makes_an_answer_invalid(answer):
    assert is_valid(SPRING, POEM, FinishReason.STOP)
    assert not is_valid(SPRING, answer, FinishReason.STOP)
    assert not is_valid(SPRING, POEM, FinishReason.ERROR)


def test_auc_by_hand():
    # 50 prompts of one character each. The answer holds its own and ten of the others: 40 below, 10 level.
    others = tuple(chr(0x5000 + i) for i in range(50))
    assert Pool(others).auc("龙", "龙" + "".join(others[:10])) == pytest.approx(0.9)


def test_a_prompt_of_the_pool_has_no_rival_in_itself():
    distractor = json.loads(POOL_FILE.read_text(encoding="utf-8"))["han"][0]
    assert identification(distractor, distractor) == 1


def test_rare_characters_weigh_more_than_common_ones():
    # 的 stands in half of the pool. Of 的龙 and 的X the answer holds 龙 of the one and 的 of the other.
    others = tuple(("的" if i % 2 else "") + chr(0x5000 + i) for i in range(50))
    assert Pool(others).auc("的龙", "龙") == 1
    assert Pool(others).auc("的龙", "的") < 0.8


def test_a_pool_has_fifty_prompts_or_more_and_no_doubles():
    shipped = json.loads(POOL_FILE.read_text(encoding="utf-8"))
    for script in ("han", "other"):
        assert len(set(shipped[script])) == len(shipped[script]) >= MIN_POOL
        assert pool(script).size == len(shipped[script])
    with pytest.raises(ValueError, match="at least 50"):
        Pool(("one",))


def test_identification_at_its_ends():
    assert identification(SPRING, "") == 0.5
    assert identification(SPRING, SPRING) == 1
    assert identification(SPRING, POEM) > 0.9
    assert identification("How do bees make honey?", "Bees make honey from nectar in the hive.") > 0.9
    assert identification("🙂", POEM) == 0.5


def test_spaces_that_a_tokenizer_put_between_characters_change_nothing():
    assert identification(SPRING, " ".join(POEM)) == identification(SPRING, POEM)


@pytest.mark.parametrize("prompt", [SPRING, "Write about spring", "", "1+1"])
@given(text=st.text(max_size=40))
def test_identification_is_a_share(prompt, text):
    assert 0 <= identification(prompt, text) <= 1


def test_unrelated_answers_are_near_chance_whatever_the_prompt_is_long():
    prompts = [
        "如何用木头做一把椅子？",
        "某商店原价销售一批台灯，每盏八十元，打折之后每盏便宜了百分之十五，一共卖出去两百盏，请计算营业额并写出步骤。",
        "阅读材料：张先生在湖边经营一家旅馆，旺季客人很多，淡季只有零星游客。他打算贷款扩建餐厅，又担心利率上涨。"
        "请从风险、收益、现金流三个角度分析他的计划是否可行，并给出两条具体建议，每条建议说明适用条件。",
        "鸟类迁徙靠什么辨认方向？",
    ]
    answers = [
        "先选一块干燥的松木，锯成四条腿和一块座板，再用榫头接合，最后打磨上漆。",
        "八十元打八五折是六十八元，六十八乘两百等于一万三千六百元，所以营业额是一万三千六百元。",
        "旺季现金流充足，可以覆盖利息；淡季收益不足，风险偏高。建议先小规模扩建，并锁定固定利率的贷款。",
        "它们依靠太阳、星星和地球的磁场，有些鸟类还能记住沿途的山脉与河流。",
    ]
    own = plain.mean(map(identification, prompts, answers))
    swapped = [
        identification(prompts[i], answers[j])
        for a, b in combinations(range(len(prompts)), 2)
        for i, j in ((a, b), (b, a))
    ]
    assert own > 0.95
    assert 0.3 < plain.mean(swapped) < 0.7


def answer(text=POEM, reason=FinishReason.STOP, phases=FAST, prompt=SPRING):
    return Answer("m", 0, 0, prompt, "诗", text, reason, phases)


def test_stored_scores_of_a_good_answer():
    scores = score_answer(answer(prompt=SPRING, text=SPRING + POEM))
    assert scores[VALID] == 1 and scores["goodput.cpu@1"] == 1
    assert scores[DIVERSITY] == diversity(POEM) and scores[IDENTIFICATION] == identification(SPRING, POEM)


def test_goodput_is_stored_under_its_profile():
    assert score_answer(answer(), GPU)["goodput.gpu@1"] == 1
    assert score_answer(answer(phases=Phases(ttft=1.0, ms_a_character=20.0)), GPU)["goodput.gpu@1"] == 0


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (answer(reason=FinishReason.CANCELLED), set()),
        (answer(text="", reason=FinishReason.ERROR, phases=Phases()), {VALID, goodput_metric(CPU)}),
        (answer(text="春天"), {VALID, IDENTIFICATION, goodput_metric(CPU)}),
        (answer(phases=Phases(cold=True)), {VALID, IDENTIFICATION, DIVERSITY}),
    ],
)
def test_metrics_that_do_not_apply_are_left_out(one, expected):
    assert score_answer(one).keys() == expected


def test_a_failure_is_neither_valid_nor_good():
    assert set(score_answer(answer(reason=FinishReason.DEADLINE)).values()) == {0.0}


def axes(rows):
    return {(score.model, score.axis): score for score in axes_of(rows)}


def validity_rows(sizes, bad, model="m", samples=1):
    """Rows of categories with ``sizes`` prompts, the first ``bad`` of each invalid."""
    rows, idx = [], 0
    for (category, size), failures in zip(sizes.items(), bad, strict=True):
        for number in range(size):
            rows += [StoredScore(model, idx, category, VALID, float(number >= failures))] * samples
            idx += 1
    return rows


def test_generalization_is_the_worst_category():
    rows = validity_rows({"a": 8, "b": 8, "c": 8, "d": 10}, [0, 2, 1, 2])
    score = axes(rows)["m", Axis.GENERALIZATION]
    assert score.estimate == wilson(6, 8).scaled(5) and score.estimate.value == 3.75
    assert score.detail == "b"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        validity_rows({"a": 8, "b": 8, "c": 8}, [0, 0, 0]),
        validity_rows({"a": 8, "b": 8, "c": 8, "d": 7}, [0, 0, 0, 0]),
        validity_rows({"a": 8, "b": 8, "c": 8, "d": 4}, [0, 0, 0, 0], samples=2),
        validity_rows({"a": 8, "b": 8, "c": 8, None: 8}, [0, 0, 0, 0]),
    ],
)
def test_generalization_needs_enough_prompts_and_categories(rows):
    rows = [*rows, StoredScore("m", 999, None, VALID, 1.0)]
    score = axes(rows)["m", Axis.GENERALIZATION]
    assert score.estimate.value is None and score.estimate.reason == "too_few_categories"


def test_a_small_category_does_not_set_the_minimum():
    rows = validity_rows({"a": 8, "b": 8, "c": 8, "d": 8, "tiny": 3}, [1, 1, 1, 1, 3])
    assert axes(rows)["m", Axis.GENERALIZATION].estimate.value == 5 * 7 / 8
    assert validity_by_category(rows)["m"]["tiny"].value == 0


def test_the_other_axes_by_hand():
    metrics = {goodput_metric(CPU): (1, 1, 1, 0), IDENTIFICATION: (1, 0.9, 0.8, 0.9), DIVERSITY: (1, 0.5, 1, 0.5)}
    rows = [("m", idx, None, metric, value) for metric, values in metrics.items() for idx, value in enumerate(values)]
    found = axes(rows)
    assert found["m", Axis.EFFICIENCY].estimate == wilson(3, 4).scaled(5)
    assert found["m", Axis.EFFICIENCY].detail == "cpu"
    assert found["m", Axis.RELEVANCE].estimate.value == pytest.approx(5 * (2 * 0.9 - 1))
    assert found["m", Axis.ARTISTRY_REPETITION].estimate.value == pytest.approx(3.75)
    assert found["m", Axis.ARTISTRY].estimate.value is None
    assert found["m", Axis.ARTISTRY].estimate.reason == "fluency_not_measured"


def test_worse_than_chance_is_zero_relevance():
    rows = [("m", idx, None, IDENTIFICATION, 0.2) for idx in range(9)]
    estimate = axes(rows)["m", Axis.RELEVANCE].estimate
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_other_versions_and_profiles_are_not_mixed_in():
    rows = [("m", 0, None, goodput_metric(CPU), 1.0), ("m", 1, None, "goodput.cpu@0", 0.0)]
    rows.append(("m", 2, None, goodput_metric(GPU), 0.0))
    estimate = axes(rows)["m", Axis.EFFICIENCY].estimate
    assert (estimate.value, estimate.n) == (5, 1)


def test_models_are_scored_apart_and_in_order():
    rows = [("z", 0, None, IDENTIFICATION, 1.0), ("a", 0, None, IDENTIFICATION, 0.5)]
    assert list(dict.fromkeys(score.model for score in axes_of(rows))) == ["z", "a"]
    assert axes(rows)["a", Axis.RELEVANCE].estimate.value == 0


def test_every_axis_and_reason_has_its_texts():
    scores = axes_of([("m", 0, None, IDENTIFICATION, 1.0)])
    assert {score.axis for score in scores} == set(Axis)
    for score in scores:
        reason = [score.estimate.reason] if score.estimate.reason else []
        for key in (score.definition, score.weakness, f"{score.axis}.name", *reason):
            chinese, english = grace_texts.text(key, "zh"), grace_texts.text(key, "en")
            assert chinese != english and not english.isspace()
