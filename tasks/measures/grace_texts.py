"""What pages, exports and reports say about the GRACE axes, in Chinese and English: one wording for all of them."""

from enum import StrEnum


class Language(StrEnum):
    ZH = "zh"
    EN = "en"


_TEXTS: dict[str, tuple[str, str]] = {
    "G.name": ("泛化 G", "Generalization G"),
    "G.definition": (
        (
            "最差类别中有效回答所占的比例 × 5，95% 区间为 Wilson 区间。有效：不为空、文字种类与提示相符、4-gram "
            "重复率不超过 0.5、不是照抄提示、已完成（自行结束，或因长度上限截断但至少有一个完整句子）。至少需要 "
            "4 个类别、每类 8 条提示。"
        ),
        (
            "Share of valid answers in the worst category, times 5, with Wilson's 95% interval. Valid: not "
            "empty, in the prompt's script, at most half of the 4-grams repeated, no echo of the prompt, "
            "finished (by itself, or cut at the length limit after a whole sentence). Needs at least 4 "
            "categories of at least 8 prompts."
        ),
    ),
    "G.weakness": (
        "自动代理指标。取若干小组的最小值会系统性偏低；结果取决于提示如何分类；只看形式，不看内容对错。",
        (
            "An automatic proxy. A minimum over small groups is biased low; it depends on the categories; it "
            "looks at form, not at whether the content is right."
        ),
    ),
    "R.name": ("相关 R", "Relevance R"),
    "R.definition": (
        (
            "提示识别：在同种文字的 60 条固定干扰提示中，回答与自己的提示更相似的比例即 AUC（相同记一半）；得分 "
            "5·max(0, 2·AUC − 1)。相似度：提示的字符 1–2-gram TF-IDF 权重中，在回答里出现的份额。95% 区间按提示自"
            "助抽样。"
        ),
        (
            "Prompt identification: the share of 60 fixed distractor prompts of the same script that the answer "
            "resembles less than its own prompt is the AUC (ties half); the score is 5·max(0, 2·AUC − 1). "
            "Similarity: the share of a prompt's character 1–2-gram TF-IDF weight that occurs in the answer. 95% "
            "interval by bootstrap over prompts."
        ),
    ),
    "R.weakness": (
        "自动代理指标。写春天却不出现“春”字的诗只得随机水平；照抄提示得满分；同领域的无关回答 AUC 可达约 0.6。",
        (
            "An automatic proxy. A spring poem without the word scores at chance; an echo scores full marks; an "
            "unrelated answer of the same domain reaches an AUC of about 0.6."
        ),
    ),
    "A.name": ("文采 A", "Artistry A"),
    "A.definition": (
        (
            "5·min(D, F)。D：n = 2、3、4 的 (1 − rep-n) 之积，中文按字、英文按词；F：流畅度。F 尚未测量，因此这一"
            "轴没有分数。"
        ),
        (
            "5·min(D, F). D is the product over n = 2, 3, 4 of (1 − rep-n), over characters for Chinese and "
            "words for English; F is fluency. F is not measured yet, so this axis has no score."
        ),
    ),
    "A.weakness": (
        "自动代理指标。衡量的是不重复与流畅，不是文学价值。",
        "An automatic proxy. It measures variety and fluency, not literary merit.",
    ),
    "A_D.name": ("文采 A（仅重复部分 D）", "Artistry A (repetition part only, D)"),
    "A_D.definition": (
        (
            "5·D 的平均值，D 为 n = 2、3、4 的 (1 − rep-n) 之积，中文按字、英文按词。95% 区间按提示自助抽样。不含"
            "流畅度，不能当作 A 轴。"
        ),
        (
            "Mean of 5·D, where D is the product over n = 2, 3, 4 of (1 − rep-n), over characters for Chinese "
            "and words for English. 95% interval by bootstrap over prompts. Without fluency it does not stand "
            "for the axis A."
        ),
    ),
    "A_D.weakness": (
        "自动代理指标。胡言乱语只要不重复就得满分；回答越长，自然重复越多。",
        "An automatic proxy. Gibberish that never repeats scores full marks; longer answers repeat more by nature.",
    ),
    "E.name": ("效率 E", "Efficiency E"),
    "E.definition": (
        (
            "在指定硬件配置下满足全部延迟目标的回答所占的比例 × 5（与 vLLM 的 goodput 相同），95% 区间为 Wilson "
            "区间。失败与超时计为不满足，冷启动与取消不计入。"
        ),
        (
            "Share of answers that meet every latency objective of a named hardware profile, times 5 (as vLLM's "
            "goodput), with Wilson's 95% interval. Failures and timeouts do not meet them; cold starts and "
            "cancelled answers do not count."
        ),
    ),
    "E.weakness": (
        "取决于所设目标与当时负载；不同硬件配置之间不可比较。",
        "Depends on the objectives and on the load at the time; two hardware profiles must not be compared.",
    ),
    "human.definition": (
        "评分者在不知道模型名称的情况下按评分细则打 1–5 分的平均值，95% 区间按提示自助抽样。",
        (
            "Mean of ratings from 1 to 5 by rubric, with the model's name hidden; 95% interval by bootstrap over "
            "prompts."
        ),
    ),
    "human.weakness": (
        "取决于评分者是谁、人数多少以及彼此是否一致（见 Krippendorff α）。",
        "Depends on who rated, how many they were, and whether they agree (see Krippendorff's alpha).",
    ),
    "not_enough_data": ("数据不足", "not enough data"),
    "too_few_categories": (
        "数据不足：至少需要 4 个类别、每类 8 条提示",
        "not enough data: needs at least 4 categories of at least 8 prompts",
    ),
    "fluency_not_measured": ("流畅度 F 尚未测量", "fluency F is not measured yet"),
}


def text(key: str, language: Language | str) -> str:
    """The text under ``key``, such as ``G.weakness`` or an estimate's reason. Raises KeyError for an unknown key."""
    chinese, english = _TEXTS[key]
    return chinese if Language(language) is Language.ZH else english


def text_or(key: str, language: Language | str, default: str) -> str:
    """The text under ``key``, or ``default`` where there is none, such as for a metric of the user's own."""
    return text(key, language) if key in _TEXTS else default
