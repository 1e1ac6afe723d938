"""A corpus apart from benchmarks: documents that share text with a benchmark are left out, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from revela.text.chunks import CHUNKS
from revela.text.parquet import read_table, write_counts, write_table
from revela.text.progress import Progress, silent

WORDS = 13  # in a row; as GPT-3's report (Brown et al., 2020, App. C) compares its training text with benchmarks
EXAMPLES = 10  # shown in the report

_WORD = re.compile(r"\w+")


def write_apart(
    benchmarks: Mapping[str, Iterable[str]], chunks: str | Path, output: str | Path, *, progress: Progress = silent
) -> dict:
    """Write the chunks of the documents that share no 13 words in a row with a benchmark, and beside them a report.

    Words are runs of letters, digits and underscores, in lower case; what stands between them does not count. Texts of
    a benchmark with fewer than 13 words have nothing to compare.

    Args:
        benchmarks: Name of a task -> the texts of its queries and documents.
        chunks: The corpus's chunks.parquet.
        output: A file of the same form; the report, a JSON file, has the same name.
        progress: Makes the progress bar.

    Returns:
        The report: how many texts were compared, how many documents were kept and left out, by source and by task,
        and the first of them, each with its words.
    """
    task_of: dict[str, str] = {}  # 13 words -> the first task that has them
    counts = {"words": WORDS, "texts": Counter(), "compared": Counter(), "kept": Counter(), "left_out": Counter()}
    counts |= {"shared_with": Counter(), "examples": []}
    for task, texts in benchmarks.items():
        for text in texts:
            runs = list(runs_of_words(text))
            counts["texts"][task] += 1
            counts["compared"][task] += bool(runs)
            for run in runs:
                task_of.setdefault(run, task)

    def kept() -> Iterator[tuple[str, str, list[str]]]:
        with progress(desc="comparing with benchmarks", unit=" documents") as bar:
            for row in read_table(chunks):
                bar.update()
                shared = next((run for run in runs_of_words(" ".join(row["chunks"])) if run in task_of), None)
                if shared is None:
                    counts["kept"][row["src"]] += 1
                    yield row["document"], row["src"], row["chunks"]
                    continue
                counts["left_out"][row["src"]] += 1
                counts["shared_with"][task_of[shared]] += 1
                if len(counts["examples"]) < EXAMPLES:
                    counts["examples"].append({"document": row["document"], "task": task_of[shared], "words": shared})

    write_table(output, CHUNKS, kept(), lambda row: sum(map(len, row[2])))
    return write_counts(output, counts)


def runs_of_words(text: str) -> Iterator[str]:
    """Every 13 consecutive words of a text.

    >>> list(runs_of_words("One, two: three 4 five_six 7 8 9 10 11 12 13 14; FIFTEEN"))
    ['one two three 4 five_six 7 8 9 10 11 12 13 14', 'two three 4 five_six 7 8 9 10 11 12 13 14 fifteen']
    """
    words = _WORD.findall(text.lower())
    return (" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))
