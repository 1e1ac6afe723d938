"""What is made of a package's files: text for training, or a benchmark of real requests, programs or articles.

An article of Wikipedia is either text for training or part of the benchmark, by the hash of its title, so the two
cannot overlap.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.text.documents import is_held_out
from revela.text.embedded import functions_in
from revela.text.layouts import RetrievalTask, name_hash, pairs, write_tasks

HELD_OUT = 20  # every so many-th article of Wikipedia is held out
# A full stop with a capital letter after it, at least eight words from the start, so that "Dr. J. Smith" is not cut.
_FIRST_SENTENCE = re.compile(r"((?:\S+\s+){7,}?\S+[.!?])\s+(?=[A-Z])")


class RecipeError(RevelaError):
    """A package's files are not what a recipe is for. The message is one line."""


def write_recipe(recipe: str, package: Path, folder: Path, *, queries: int, documents: int) -> dict:
    """Make a dataset of a package's files, and return its facts: `sha256` over its content, and its counts.

    wikipedia-text
        Text for training: `train.parquet` with the introductions of articles (title, text) but for those held out.
    wikipedia-search
        The first sentence of a held-out article's introduction finds the rest of it, in BEIR's layout.
    bfcl
        Requests of the Berkeley Function-Calling Leaderboard find the documentation of the functions that answer them, in
        CoIR's layout. Functions of one name are one document.
    human-eval
        Docstrings of HumanEval find their solutions, in CoIR's layout. A docstring is cut before its first example, which
        would name the function. Functions without any text before it are left out.

    Args:
        recipe: One of these names.
        package: The folder of the package's files.
        folder: An existing folder.
        queries: Queries of a benchmark at most, chosen by the hashes of their names.
        documents: Documents of a benchmark at most. Relevant ones always stay.

    Raises:
        RecipeError: The package's files are not those that the recipe is for.
    """
    try:
        if recipe == "wikipedia-text":
            return _write_articles(_articles(package), folder)
        layout, name, make = _BENCHMARKS[recipe]
        return write_tasks(layout, {name: make(package)}, folder, queries=queries, documents=documents)
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError) as error:
        raise RecipeError(f"{package}: not the files for recipe {recipe} ({type(error).__name__}: {error})") from None


def held_out(title: str) -> bool:
    """Whether an article is held out from training: every twentieth, by the hash of its title."""
    return is_held_out(title, HELD_OUT)


def first_sentence(text: str) -> tuple[str, str] | None:
    """A text as its first sentence and the rest; None where that has fewer than twenty words, or no end is found."""
    sentence = _FIRST_SENTENCE.match(text)
    rest = text[sentence.end() :] if sentence else ""
    return (sentence[1], rest) if len(rest.split()) >= 20 else None


def _only(package: Path, pattern: str) -> Path:
    found = sorted(package.rglob(pattern))
    if len(found) != 1:
        raise RecipeError(f"{package}: {len(found)} files {pattern}, one is needed")
    return found[0]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


# --- Wikipedia


def _articles(package: Path) -> dict[str, str]:
    """title -> introduction."""
    found = json.loads(_only(package, "summaries_*.json").read_text(encoding="utf-8"))
    return {title: " ".join(article["extract"].split()) for title, article in found.items()}


def _write_articles(articles: dict[str, str], folder: Path) -> dict:
    """In the order of the titles' hashes, so that neighbours are unrelated."""
    titles = sorted((title for title in articles if not held_out(title)), key=name_hash)
    digest = hashlib.sha256()
    for title in titles:
        digest.update(f"{title}\0{articles[title]}\0".encode())
    table = pa.table({"title": titles, "text": [articles[title] for title in titles]})
    pq.write_table(table, folder / "train.parquet")
    return {"sha256": digest.hexdigest(), "articles": len(titles), "held_out": len(articles) - len(titles)}


def _sentence_to_rest(package: Path) -> RetrievalTask:
    found = {title: first_sentence(text) for title, text in sorted(_articles(package).items()) if held_out(title)}
    return pairs([(title, *split) for title, split in found.items() if split])


# --- functions and programs


def _request_to_function(package: Path) -> RetrievalTask:
    documents, queries, relevant, name_of = {}, {}, {}, {}
    for file in sorted(package.rglob("BFCL_*.json")):
        if file.parent.name == "possible_answer":
            continue
        answers = {row["id"]: row["ground_truth"] for row in _rows(file.parent / "possible_answer" / file.name)}
        for row in _rows(file):
            for function in row["function"]:
                documents.setdefault(function["name"], _documentation(function))
            called = {name for call in answers[row["id"]] for name in call}
            request = "\n".join(turn["content"] for turn in row["question"][0] if turn["role"] == "user").strip()
            name = name_of.setdefault(request, row["id"])  # one that stands twice asks for all that either calls
            queries[name] = request
            relevant[name] = sorted({*relevant.get(name, []), *called})
    return RetrievalTask(documents, queries, relevant, {name: [] for name in queries})


def _documentation(function: dict[str, Any]) -> str:
    """A function's name, what it does, and each of its parameters in a line."""
    parameters: Iterable = function["parameters"].get("properties", {}).items()
    lines = [f"{name}: {value.get('description', '')}".strip() for name, value in parameters]
    return "\n".join([f"{function['name']}: {function['description']}", *lines])


def _docstring_to_solution(package: Path) -> RetrievalTask:
    found = []
    for row in _rows(_only(package, "HumanEval.jsonl.gz")):
        source = row["prompt"] + row["canonical_solution"]
        functions = functions_in(ast.parse(source), source.splitlines(), "human-eval", "")
        documented = [one for one in functions if one.name == f".{row['entry_point']}"]
        for one in documented:
            lines = one.docstring.splitlines()
            examples = (i for i, line in enumerate(lines) if ">>>" in line or row["entry_point"] in line)
            asked = "\n".join(lines[: next(examples, None)]).strip()
            found += [(row["task_id"], asked, one.code)] if asked else []
    return pairs(found)


_BENCHMARKS: dict[str, tuple[str, str, Callable[[Path], RetrievalTask]]] = {
    "wikipedia-search": ("beir", "wikipedia", _sentence_to_rest),
    "bfcl": ("coir", "bfcl", _request_to_function),
    "human-eval": ("coir", "human-eval", _docstring_to_solution),
}
