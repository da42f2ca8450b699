"""Quatrains as training text: which poems, which prompts ask for them.

The corpus is a JSONL file (gzip or plain) of ``{"title", "author", "text"}``. Only quatrains are kept: four
lines of five or of seven characters. Each poem is paired, anew in every epoch, with a prompt that asks for it,
such as ``写一首关于春天的诗``; the subject comes from the poem's own lines or from its title, so that a model
trained on these pairs learns to write *about* what it is asked for.
"""

import gzip
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[EOS]"
ASCII = "".join(map(chr, range(32, 127)))
PUNCTUATION = "\n，。！？、：；“”‘’《》（）…—·"

PLAIN_PROMPT = "写一首关于{}的诗"
OTHER_PROMPTS = ("写一首{}的诗", "请写一首关于{}的诗", "以{}为题写一首诗", "请以{}为题，写一首诗", "写一首诗：{}", "{}")
FORM_PROMPTS = {
    5: ("写一首关于{}的五言绝句", "以{}为题写一首五言绝句", "写一首关于{}的五言诗"),
    7: ("写一首关于{}的七言绝句", "以{}为题写一首七言绝句", "写一首关于{}的七言诗"),
}

MODERN_WORDS = {
    "春": ("春天", "春日", "春季"), "夏": ("夏天", "夏日"), "秋": ("秋天", "秋日", "秋季"), "冬": ("冬天", "冬日"),
    "月": ("月亮", "月光", "明月"), "日": ("太阳", "落日"), "星": ("星星", "星空"), "雨": ("下雨", "雨水", "雨天"),
    "雪": ("雪花", "下雪", "雪景"), "风": ("大风", "微风"), "云": ("白云", "云彩"), "海": ("大海", "海洋"),
    "江": ("长江", "江水"), "河": ("黄河", "河流"), "湖": ("湖水", "湖泊"), "山": ("高山", "大山", "山水"),
    "花": ("花朵", "鲜花", "百花"), "梅": ("梅花",), "菊": ("菊花",), "兰": ("兰花",), "荷": ("荷花",), "莲": ("莲花",),
    "桃": ("桃花",), "杏": ("杏花",), "桂": ("桂花",), "竹": ("竹子", "竹林"), "松": ("松树",), "柳": ("柳树", "杨柳"),
    "草": ("小草", "草原"), "树": ("大树", "树林"), "叶": ("树叶", "落叶"), "鸟": ("小鸟", "飞鸟"), "燕": ("燕子",),
    "雁": ("大雁",), "鹤": ("白鹤",), "马": ("骏马",), "鱼": ("小鱼", "鱼儿"), "蝉": ("知了",), "蝶": ("蝴蝶",),
    "酒": ("喝酒", "美酒", "饮酒"), "茶": ("喝茶", "品茶"), "琴": ("古琴",), "书": ("读书", "书本"), "棋": ("下棋",),
    "乡": ("故乡", "家乡", "思乡"), "家": ("回家", "家园"), "友": ("朋友", "友情"), "别": ("离别", "送别", "分别"),
    "情": ("爱情", "感情"), "愁": ("忧愁", "哀愁"), "梦": ("做梦", "梦想", "梦境"), "老": ("老人", "衰老"),
    "夜": ("夜晚", "黑夜"), "晓": ("早晨", "清晨"), "暮": ("傍晚", "黄昏"), "客": ("旅客", "旅行"), "僧": ("和尚",),
    "舟": ("小船", "小舟"), "船": ("渔船",), "城": ("城市",), "边": ("边塞",), "战": ("战争",), "剑": ("宝剑",),
    "时": ("时间", "时光"), "年": ("新年", "过年"), "静": ("安静", "宁静"), "闲": ("悠闲", "休闲"), "孤": ("孤独",),
    "寒": ("寒冷",), "热": ("炎热",), "火": ("大火", "火焰"), "水": ("流水",), "泉": ("泉水",), "溪": ("小溪",),
    "虫": ("虫子",), "猫": ("小猫",), "犬": ("小狗",), "母": ("母亲", "妈妈"), "儿": ("儿童", "孩子"), "诗": ("诗歌",),
}  # fmt: skip
TITLE_WORD = re.compile(r"[\u4e00-\u9fff]{2}")
EMPTY_CHARACTERS = set(
    "不一无有人何来时上自中是为去如得此相与知未已可君生见我行下更今却从其之亦犹应似谁莫将须欲向又还只"
)


@dataclass(frozen=True)
class Quatrain:
    """One poem of four lines; ``width`` is the number of characters a line (5 or 7)."""

    title: str
    lines: tuple[str, str, str, str]
    width: int

    @property
    def text(self) -> str:
        first, second, third, fourth = self.lines
        return f"{first}，{second}。\n{third}，{fourth}。"


def read_quatrains(path: Path) -> list[Quatrain]:
    """Read every quatrain of the corpus at ``path``, in file order, each text once."""
    found: dict[str, Quatrain] = {}
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            lines = tuple(line for line in re.split("[，。！？；、]", row["text"]) if line)
            widths = {len(line) for line in lines}
            if len(lines) == 4 and widths in ({5}, {7}):
                found.setdefault(row["text"], Quatrain(row["title"], lines, widths.pop()))
    return list(found.values())


def build_vocabulary(poems: list[Quatrain], at_least: int) -> list[str]:
    """Characters seen ``at_least`` times in ``poems``, and every character that a prompt form is made of."""
    counts = Counter("".join("".join(poem.lines) for poem in poems))
    needed = set(ASCII + PUNCTUATION).union(
        *(form.format("") for form in (PLAIN_PROMPT, *OTHER_PROMPTS, *FORM_PROMPTS[5], *FORM_PROMPTS[7])),
        *(word for words in MODERN_WORDS.values() for word in words),
    )
    common = {character for character, count in counts.items() if count >= at_least}
    return [PAD, UNKNOWN, END, *sorted(common | needed)]


def subject_of(poem: Quatrain, dice: random.Random) -> str:
    """What ``poem`` can be said to be about: a character, a word of a line or of the title, a modern word."""
    characters = [c for c in "".join(poem.lines) if c not in EMPTY_CHARACTERS] or list(poem.lines[0])
    chance = dice.random()
    if chance < 0.25:
        modern = [word for c in characters for word in MODERN_WORDS.get(c, ())]
        if modern:
            return dice.choice(modern)
    elif chance < 0.45:
        line = dice.choice(poem.lines)
        start = dice.choice(range(0, poem.width - 1, 2))
        return line[start : start + 2]
    elif chance < 0.55:
        words = [word for word in TITLE_WORD.findall(poem.title) if set(word) & set(characters)]
        if words:
            return dice.choice(words)
    return dice.choice(characters)


def prompt_for(poem: Quatrain, dice: random.Random) -> str:
    """A prompt that asks for ``poem``, most often in the plain form."""
    chance = dice.random()
    if chance < 0.65:
        form = PLAIN_PROMPT
    elif chance < 0.8:
        form = dice.choice(FORM_PROMPTS[poem.width])
    else:
        form = dice.choice(OTHER_PROMPTS)
    return form.format(subject_of(poem, dice))
