"""Words of the generated report in Chinese and English."""

from tasks.measures.grace_texts import Language

_TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Touchstone 评测报告", "Touchstone report"),
    "run": ("运行", "Run"),
    "created": ("创建时间（UTC）", "Created (UTC)"),
    "prompts": ("提示数", "Prompts"),
    "samples": ("每条提示的样本数", "Samples a prompt"),
    "sampling": ("解码设置", "Decoding settings"),
    "settings": ("生效的设置", "effective settings"),
    "models": ("模型", "Models"),
    "model": ("模型", "Model"),
    "revision": ("版本", "Revision"),
    "done": ("完成", "Done"),
    "failed": ("失败", "Failed"),
    "cancelled": ("取消", "Cancelled"),
    "pending": ("未完成", "Pending"),
    "incomplete": (
        "运行尚未结束，以下数字只涵盖已有的回答。",
        "The run has not ended; the numbers below cover the answers there are.",
    ),
    "automatic": ("GRACE：自动代理指标", "GRACE: automatic proxies"),
    "human": ("GRACE：人工评分", "GRACE: human ratings"),
    "no_human": ("没有人工评分。", "There are no human ratings."),
    "cell": ("每格：得分（0–5）[95% 区间]，n 为回答数。", "Each cell: score (0–5) [95% interval], n answers."),
    "human_cell": (
        "每格：得分（0–5）[95% 区间]，n 为评分数。人工评分与自动指标从不平均。",
        "Each cell: score (0–5) [95% interval], n ratings. Human and automatic scores are never averaged.",
    ),
    "latency": ("延迟", "Latency"),
    "latency_note": (
        (
            "百分位 p50 / p90 / p95 / p99，单位为秒（另有注明除外），n 为有该测量的热启动且成功的回答；p99 仅在 "
            "n ≥ 1000 时给出。排队时间不计入模型延迟。"
        ),
        (
            "Percentiles p50 / p90 / p95 / p99 in seconds unless the name says otherwise, over the n warm and "
            "successful answers that have the measure; p99 only from n = 1000. Queue time is never part of a "
            "model's latency."
        ),
    ),
    "phase": ("阶段", "Phase"),
    "percentiles": ("p50 / p90 / p95 / p99", "p50 / p90 / p95 / p99"),
    "queue": ("排队：领取 − 入队", "queue: claimed − enqueued"),
    "slot_wait": ("等待槽位：接纳 − 领取", "slot wait: admitted − claimed"),
    "ttft": ("TTFT：首个 token − 接纳", "TTFT: first token − admitted"),
    "tpot": ("TPOT：（末 − 首）/（n − 1）", "TPOT: (last − first) / (n − 1)"),
    "service": ("服务：末个 token − 接纳", "service: last token − admitted"),
    "e2e": ("端到端：写入 − 创建", "end to end: written − created"),
    "ms_a_character": ("每字符毫秒数", "ms a character"),
    "cold_load": ("冷启动加载", "cold load"),
    "cold_ttft": ("冷启动 TTFT", "cold TTFT"),
    "rates": ("速率", "Rates"),
    "output_rate": ("输出 token/秒", "output tokens/s"),
    "characters_per_second": ("字符/秒", "characters/s"),
    "goodput_rate": ("达标回答/秒", "answers/s that meet the objectives"),
    "goodput": ("达标比例", "share that meets the objectives"),
    "failed_share": ("失败比例", "share that failed"),
    "rates_note": (
        (
            "速率为总和除以忙碌时间（各回答 [接纳, 末个 token] 区间的并集），不是速率的平均。不同分词器之间请比较"
            "字符，不要比较 token。"
        ),
        (
            "Rates are sums over busy time, the union of all [admitted, last token], not means of rates. Compare "
            "characters, not tokens, across tokenizers."
        ),
    ),
    "objectives": ("延迟目标", "Latency objectives"),
    "methods": ("方法与已知局限", "Methods and known limits"),
    "limits": ("本次运行的局限", "Limits of this run"),
    "version": ("公式版本", "formula version"),
    "definition": ("定义", "Definition"),
    "weakness": ("已知弱点", "Known weakness"),
    "detail": ("取决于", "depends on"),
    "environment": ("环境", "Environment"),
    "examples": ("示例", "Examples"),
    "prompt": ("提示", "Prompt"),
    "few": (
        "某些区间所依据的回答少于 30 个，只能看作示意。",
        "Some intervals rest on fewer than 30 answers and are indicative only.",
    ),
    "overlap": (
        "区间重叠不等于没有差异；模型之间的差异应按提示配对检验。",
        "Overlapping intervals do not prove that there is no difference; test differences paired by prompt.",
    ),
    "form_only": (
        "自动指标只看形式，不判断内容是否正确。",
        "Automatic proxies look at form and do not judge whether the content is right.",
    ),
    "failures": (
        "失败的回答没有文字，只计入 G 与 E，不计入 R 与 D。",
        "Failed answers count in G and E, not in R and D.",
    ),
}


def text(key: str, language: Language | str) -> str:
    """The words under ``key``. Raises KeyError for an unknown key."""
    chinese, english = _TEXTS[key]
    return chinese if Language(language) is Language.ZH else english
