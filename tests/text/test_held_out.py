"""A benchmark of held-out text: which questions documents give, which documents are held out, and that nothing is in both."""

import json

import pytest

from revela.study.corpora import TextSource
from revela.text import CorpusError
from revela.text.documents import documents, is_held_out
from revela.text.held_out import ENOUGH, LEAST, questions, share, write_benchmark

BODY = " ".join(f"word{n}" for n in range(25))
NOTE = f"""---
title: a note with front matter
---
# [How](https://example.org) to **sort** a list

{BODY}

```bash
# no heading in a block of code
```

Usage
-----

{BODY}

Where ties are broken in a ranking
~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

{BODY} {BODY} {BODY} {BODY} {BODY} end.

## A heading with little below it

Too few words.
"""


def asked(name, text):
    return [(query, passage) for _, query, passage in questions(name, text)]


def test_headings_ask_for_what_stands_below_them():
    """Without front matter, code, headings of one word, and sections of a few words."""
    (first, below), (second, long) = asked("mine/a.md", NOTE)
    assert (first, second) == ("How to sort a list", "Where ties are broken in a ranking")
    assert below.startswith(BODY) and "no heading" in below and "Usage" not in below
    assert len(long.split()) == 120 and long.startswith(BODY)
    assert [name for name, *_ in questions("mine/a.md", NOTE)] == ["mine/a.md#0", "mine/a.md#1"]


def test_a_first_sentence_asks_for_the_rest_where_there_is_no_heading():
    sentence = "The weight of another chunk is the similarity of its embedding."
    assert asked("mine/rows.jsonl:3", f"{sentence} Then {BODY}.") == [(sentence, f"Then {BODY}.")]
    assert asked("mine/a.txt", f"<html> <head> <b> one two three four five six. Then {BODY}.") == []
    assert asked("mine/a.txt", f"{BODY} {BODY} {BODY}. Then {BODY}.") == []  # longer than questions are
    assert asked("mine/a.txt", "Short. And short.") == asked("mine/a.txt", "") == []


def test_a_docstring_asks_for_its_code():
    code = '''"""A module."""

def sort_values(values):
    """Sort the values
    of a list.

    In place.
    """
    ordered = sorted(values, key=lambda value: value.name)
    return [value.name for value in ordered if value]


def short(values):
    """Sort no values at all."""


class Kept:
    """A class that keeps values."""
'''
    [(query, passage)] = asked("mine/a/b.py", code)
    assert query == "Sort the values of a list." and passage.startswith("def sort_values(values):\n    ordered =")
    assert "of a list" not in passage
    assert asked("mine/a.py", "print 'Python 2'") == asked("mine/a.js", NOTE) == []


def notes(number):
    return [(f"mine/{n}.md", f"# What note {n} has to say\n\n{BODY} {n}") for n in range(number)]


@pytest.mark.parametrize("number, every", [(10, None), (60, None), (200, 5), (700, 5), (1300, 10), (4000, 20)])
def test_as_few_are_held_out_as_give_enough(number, every):
    found = notes(number)
    of_fifth = sum(is_held_out(name, 5) for name, _ in found)
    chosen, read, most = share(found)
    assert chosen == every
    assert read <= number and most <= of_fifth and (every == 20 or (read, most) == (number, of_fifth))
    if every is None:
        assert most < LEAST
    elif every < 20:
        assert sum(is_held_out(name, 2 * every) for name, _ in found) < ENOUGH


def test_no_document_is_trained_on_and_asked_for(tmp_path):
    (tmp_path / "text").mkdir()
    for name, text in notes(300):
        (tmp_path / "text" / name.partition("/")[2]).write_text(text)
    source = TextSource(dataset="mine", mixed=True, hold_out=5)
    facts = write_benchmark(source, tmp_path / "text", tmp_path, queries=30, documents=50)
    task = tmp_path / "held-out"
    rows = {file: [json.loads(line) for line in (task / f"{file}.jsonl").open()] for file in ("corpus", "queries")}
    assert facts["tasks"] == {"held-out": {"documents": 50, "queries": 30}} and len(rows["queries"]) == 30
    asked = {row["_id"].rpartition("#")[0] for row in rows["corpus"]}
    trained = {name for name, _ in documents(source, tmp_path / "text")}
    assert not asked & trained and trained == {name for name, _ in notes(300) if not is_held_out(name, 5)}
    judged = [line.split("\t") for line in (task / "qrels/test.tsv").read_text().splitlines()[1:]]
    assert [query for query, *_ in judged] == [row["_id"] for row in rows["queries"]]
    assert all(query == f"query/{document}" for query, document, _ in judged)


def test_too_few_questions_are_an_error(tmp_path):
    (tmp_path / "a.md").write_text(NOTE)
    source = TextSource(dataset="mine", mixed=True, hold_out=5)
    with pytest.raises(CorpusError, match=f"questions, and {LEAST} are needed; lower hold_out, or give"):
        write_benchmark(source, tmp_path, tmp_path, queries=30, documents=50)
