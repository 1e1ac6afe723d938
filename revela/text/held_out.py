"""A benchmark of a user's own text: what stands above a passage of a held-out document has to find it.

Nobody has asked these questions, so they show whether training helped, not how well real ones are answered. A document
is held out by the hash of its name, and no chunk of it is trained on. It gives a question for each

- section of prose under a heading of three words or more (Markdown, reStructuredText),
- documented function, if it is Python: the docstring's first paragraph finds the code without its docstring,

and, where a document of prose has no such heading, for its first sentence, which finds the rest. What is asked no longer
stands in the passage. A passage is the beginning of what stands below, 120 words at most. Code in other languages gives
no question.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from revela.text import CorpusError
from revela.text.documents import CODE, documents, is_held_out
from revela.text.embedded import functions_in
from revela.text.layouts import pairs, write_tasks
from revela.text.recipes import first_sentence

if TYPE_CHECKING:
    from revela.study.corpora import TextSource

NAME = "held-out"  # of the task
SHARES = (20, 10, 5)  # every so many-th document is held out: as few as give enough questions
ENOUGH, LEAST = 100, 20  # questions
WORDS = 120  # of a passage at most
LEAST_WORDS = {"prose": 20, "code": 10}  # of a passage
ASKED_WORDS = 60  # of a question at most; what is longer is a list rather than a sentence
HEADING_WORDS = 3  # fewer, such as "Usage", ask for nothing

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*")
_UNDERLINE = re.compile(r"([=\-~^*+\"'])\1{2,}\s*")
_MARKUP = re.compile(r"[*`]")
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
_WORD = re.compile(r"\b[^\W\d_]{2,}\b")
_NOT_PROSE = re.compile(r"[<>{}=|\\]")


def write_benchmark(source: TextSource, text: str | Path, folder: Path, *, queries: int, documents: int) -> dict:
    """Write the questions of a text's held-out documents in BEIR's layout, and return their facts.

    Args:
        source: How the text is read, and every how many-th document is held out.
        text: The folder of the text.
        folder: An existing folder.
        queries: Questions at most, chosen by the hashes of their names.
        documents: Passages at most. Those that are asked for always stay.

    Returns:
        `sha256` over all of it, and the counts.

    Raises:
        CorpusError: There are too few questions, or a file cannot be read.
    """
    found = pairs([one for name, content in _held_out(source, text) for one in questions(name, content)])
    if len(found.queries) < LEAST:
        raise CorpusError(
            f"one document in {source.hold_out} is held out to compare on, which by now gives {len(found.queries)} "
            f"questions, and {LEAST} are needed; lower hold_out, or give `revela train` --overwrite, which decides anew "
            "whether there is enough text"
        )
    return write_tasks("beir", {NAME: found}, folder, queries=queries, documents=documents)


def _held_out(source: TextSource, folder: str | Path) -> Iterator[tuple[str, str]]:
    whole = source.model_copy(update={"hold_out": None})
    return ((name, text) for name, text in documents(whole, folder) if is_held_out(name, source.hold_out))


def share(found: Iterable[tuple[str, str]]) -> tuple[int | None, int, int]:
    """Every how many-th of some documents to hold out.

    Returns:
        The share: the least that gives 100 questions, or the greatest if that gives 20; None where it does not. Then
        how many documents were read, and how many questions the greatest share gave of them. Reading ends once the
        least share has given enough.
    """
    asked: dict[int, set[str]] = {every: set() for every in SHARES}
    number = 0
    for number, (name, text) in enumerate(found, start=1):
        if not is_held_out(name, SHARES[-1]):
            continue
        queries = {query for _, query, _ in questions(name, text)}
        for every in SHARES:
            asked[every] |= queries if is_held_out(name, every) else set()
        if len(asked[SHARES[0]]) >= ENOUGH:
            break
    enough = [every for every in SHARES if len(asked[every]) >= ENOUGH]
    most = len(asked[SHARES[-1]])
    return (enough or [SHARES[-1]])[0] if most >= LEAST else None, number, most


def questions(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    """(name, query, passage) of every question that a document gives, by the suffix of its name."""
    suffix = Path(name).suffix.lower()
    if suffix == ".py":
        found, least = _documented(text), LEAST_WORDS["code"]
    elif suffix in CODE:
        return
    else:
        found, least = _sections(_FRONT_MATTER.sub("", text)), LEAST_WORDS["prose"]
    found = [(query, beginning(passage)) for query, passage in found]
    found = [(query, passage) for query, passage in found if len(passage.split()) >= least]
    if not found and suffix != ".py" and (split := first_sentence(" ".join(text.split()))):
        found = [(split[0], beginning(split[1]))] if not _NOT_PROSE.search(split[0]) else []
    found = [(query, passage) for query, passage in found if len(query.split()) <= ASKED_WORDS]
    for number, (query, passage) in enumerate(found):
        yield f"{name}#{number}", query, passage


def beginning(text: str, words: int = WORDS) -> str:
    """The first words of a text, as they stand.

    >>> beginning(" one  two\\nthree ", 2)
    'one  two'
    """
    spans = [word.span() for word in islice(re.finditer(r"\S+", text), words)]
    return text[spans[0][0] : spans[-1][1]] if spans else ""


def _documented(text: str) -> list[tuple[str, str]]:
    """(first paragraph of the docstring, code without it) of the functions in a Python file."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError):  # Python 2, or a template
        return []
    found = functions_in(tree, text.splitlines(), "", "")
    return [(one.summary, one.code) for one in found if len(_WORD.findall(one.summary)) >= HEADING_WORDS]


def _sections(text: str) -> list[tuple[str, str]]:
    """(heading, what stands below it, up to the next) in prose."""
    found: list[tuple[str | None, list[str]]] = [(None, [])]
    fence = None
    for line in text.splitlines():
        below = found[-1][1]
        above = below[-1].strip() if below else ""
        if fence is None and above and _UNDERLINE.fullmatch(line) and len(line.strip()) >= len(above):
            below.pop()
            found.append((above, []))
            continue
        if mark := _FENCE.match(line):
            fence = None if mark[1] == fence else fence or mark[1]
        if fence is None and (heading := _HEADING.fullmatch(line)):
            found.append((heading[1], []))
        else:
            below.append(line)
    named = ((_MARKUP.sub("", _LINK.sub(r"\1", heading)), lines) for heading, lines in found if heading)
    return [
        (heading, "\n".join(lines))
        for heading, lines in named
        if len(_WORD.findall(heading)) >= HEADING_WORDS and not _NOT_PROSE.search(heading)
    ]
