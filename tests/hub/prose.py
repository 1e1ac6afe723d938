"""Text that is made up, with words that recur as in real text: a query shares words with its document."""

import random

WORDS = [
    "matrix",
    "river",
    "library",
    "function",
    "garden",
    "engine",
    "market",
    "protein",
    "window",
    "column",
    "letter",
    "planet",
    "bridge",
    "kernel",
    "signal",
    "theory",
    "museum",
    "harbour",
    "battery",
    "cluster",
    "vector",
    "filter",
    "mountain",
    "recipe",
    "orbit",
    "tensor",
    "budget",
    "glacier",
    "parser",
    "canal",
    "novel",
    "enzyme",
    "festival",
    "compiler",
    "railway",
    "archive",
    "insect",
    "climate",
    "processor",
    "painter",
    "village",
    "neuron",
    "harvest",
    "algorithm",
    "island",
    "sensor",
    "index",
    "query",
    "table",
    "winter",
    "forest",
    "copper",
    "ladder",
    "mirror",
    "pillar",
    "rocket",
    "saddle",
    "temple",
    "violin",
    "walnut",
    "yellow",
    "zebra",
    "anchor",
]
VERBS = [
    "holds",
    "returns",
    "moves",
    "follows",
    "covers",
    "carries",
    "joins",
    "splits",
    "reaches",
    "measures",
    "replaces",
    "supports",
    "describes",
]
ENDS = (".", ".", ".", "?", "!", " (see Fig. 3).", ", as Dr. Ada wrote.", " in 1984.")


def sentence(dice: random.Random, topic: list[str]) -> str:
    """One sentence; about half of its nouns are of the topic."""
    nouns = [dice.choice(topic if dice.random() < 0.5 else WORDS) for _ in range(dice.randint(3, 6))]
    words = ["The", *" of the ".join(nouns[:2]).split(), dice.choice(VERBS), "a", *" and ".join(nouns[2:]).split()]
    return " ".join(words) + dice.choice(ENDS)


def text(dice: random.Random, words: int, topic: list[str] | None = None) -> str:
    """About so many words."""
    topic, found = topic or dice.sample(WORDS, 4), []
    while sum(map(len, map(str.split, found))) < words:
        found.append(sentence(dice, topic))
    return " ".join(found)


def code(dice: random.Random, topic: list[str] | None = None) -> str:
    """A function of a few lines."""
    a, b, c = (topic or dice.sample(WORDS, 4))[:3]
    return (
        f'def {a}_{b}({c}, limit={dice.randint(2, 99)}):\n    """{sentence(dice, [a, b, c])}"""\n'
        f"    {a} = [{b} for {b} in {c} if {b} is not None]\n    return sorted({a})[:limit]\n"
    )
