"""Before and after: what an untrained backbone and the retriever trained from it answer to ten queries, on one page.

The queries are chosen by a rule, so that nobody picks the pleasant ones. Of all queries of a benchmark, those are taken
for which one of the two rankings has a right text among its first ten. They are ordered by how much the right text has
risen, as measured by the reciprocal of its rank, and ten at equal distances are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from revela.evaluation.runs import read_run
from revela.evaluation.tasks import load_task
from revela.files import atomic_write
from revela.paper.page import html_page

if TYPE_CHECKING:
    from revela.evaluation.tasks import Part
    from revela.study.specification import ScoreSpec

QUERIES, SHOWN, LOOKED_AT = 10, 3, 10  # queries of a page, ranks that it shows, ranks that decide
LETTERS = 180  # of a text

HEAD = """<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --card: #f6f8fa; --right: #1a7f37;
  --page: #fff; --own: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --card: #151b23;
  --right: #3fb950; --page: #0d1117; --own: #58a6ff } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 62rem; padding: 1rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 }
.query { font-size: .95rem; font-weight: 600; margin: 0 0 .75rem; overflow-wrap: anywhere }
.side { font-size: .8rem; margin: 0 0 .25rem; text-transform: uppercase; letter-spacing: .04em; color: var(--soft) }
.two > :last-child > .side { color: var(--own) }
p { margin: .5rem 0 } .soft, small { color: var(--soft) }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .8rem .2rem 0; text-align: right }
th:first-child { text-align: left; font-weight: normal } thead th { border-bottom: 1px solid var(--line) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0 }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem 2rem }
.two ol { list-style: none; margin: 0; padding: 0 } .two li { display: grid; grid-template-columns: 1.6rem 1fr; margin: .35rem 0 }
.two li > span:last-child { overflow-wrap: anywhere; font-size: .9rem } .wrong { color: var(--soft) }
.mark { font-weight: bold } .right .mark { color: var(--right) }
</style>"""


@dataclass(frozen=True)
class Answers:
    """A query with both rankings, best first, and the texts that are right."""

    task: str  # its label
    part: Part
    query: str
    right: frozenset[str]
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def rise(self) -> float:
        """The reciprocal of the first right text's rank after training, less that before."""
        return reciprocal(self.after, self.right) - reciprocal(self.before, self.right)

    @property
    def key(self) -> tuple[float, float, str, str]:
        """By which queries are ordered: the greatest rise first; of equal ones that with the better rank."""
        return -self.rise, -reciprocal(self.after, self.right), self.task, self.part.key(self.query)


def reciprocal(ranking: Sequence[str], right: frozenset[str]) -> float:
    """1 / rank of the first right text, 0 if there is none.

    >>> reciprocal(["a", "b"], frozenset("b")), reciprocal([], frozenset("b"))
    (0.5, 0.0)
    """
    return next((1 / rank for rank, document in enumerate(ranking, start=1) if document in right), 0.0)


def answers(
    spec: ScoreSpec, datasets: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[Answers]:
    """All judged queries of a benchmark with their rankings.

    Args:
        spec: The scores of the trained retriever.
        datasets: Dataset -> folder.
        before, after: Task -> run file.
    """
    for task in spec.tasks:
        ranked = [dict(_rankings(runs[task.task])) for runs in (before, after)]
        for part in load_task(task, datasets[task.dataset], document_text=spec.document_text):
            for query, judged in part.qrels.items():
                right = frozenset(document for document, grade in judged.items() if grade > 0)
                if right:
                    yield Answers(task.label, part, query, right, *(run.get(part.key(query), ()) for run in ranked))


def _rankings(run: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Query -> its documents, the best first; ties by descending id, as in the scores."""
    for query, scores in read_run(run):
        yield query, tuple(sorted(scores, key=lambda document: (scores[document], document), reverse=True))


def choose(found: Sequence[Answers]) -> list[Answers]:
    """The queries that are shown, by the rule above."""
    ordered = sorted((one for one in found if _is_answered(one)), key=lambda one: one.key)
    number = min(QUERIES, len(ordered))
    return [ordered[(2 * place + 1) * len(ordered) // (2 * number)] for place in range(number)]


def _is_answered(one: Answers) -> bool:
    return any(one.right & {*ranking[:LOOKED_AT]} for ranking in (one.before, one.after))


def write_before_after(
    spec: ScoreSpec,
    datasets: Mapping[str, str],
    before: Mapping[str, str],
    after: Mapping[str, str],
    output: str | Path,
) -> None:
    """Write the page; arguments as for `answers`. Equal runs give equal bytes."""
    intro = (
        f"<h1>Before and after</h1>\n<p>What the untrained backbone and <b>{escape(spec.system.name)}</b> answer to "
        f"queries of {escape(spec.benchmark)}.</p>"
    )
    with atomic_write(output) as partial:
        partial.write_text(
            html_page("Before and after", f"{intro}\n{shares_and_cards(spec, datasets, before, after)}", head=HEAD),
            encoding="utf-8",
        )


def shares_and_cards(
    spec: ScoreSpec,
    datasets: Mapping[str, str],
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    level: int = 2,
) -> str:
    """How often a right text comes first, and the queries that are shown; their headings have this level."""
    found = list(answers(spec, datasets, before, after))
    shown = choose(found)
    texts: dict[int, dict[str, str]] = {}
    for part in {id(one.part): one.part for one in shown}.values():
        ids = {document for one in shown if one.part is part for document in _documents(one)}
        texts[id(part)] = {document: text for document, text in part.corpus if document in ids}
    several = len(spec.tasks) > 1
    cards = [_card(one, texts[id(one.part)], level, f" <small>({escape(one.task)})</small>" * several) for one in shown]
    return "\n".join([*_shares(found, len(shown)), *cards])


def _documents(one: Answers) -> list[str]:
    """The documents whose texts a card shows."""
    return [*one.before[:SHOWN], *one.after[:SHOWN], min(one.right)]


def _shares(found: Sequence[Answers], shown: int) -> Iterator[str]:
    answered = [one for one in found if _is_answered(one)]
    rose, fell = sum(one.rise > 0 for one in answered), sum(one.rise < 0 for one in answered)
    yield (
        '<table><thead><tr><th scope="col">of all queries</th><th scope="col">untrained</th><th scope="col">trained</th>'
        "</tr></thead><tbody>"
    )
    for depth, what in (
        (1, "right text first"),
        (SHOWN, f"among the first {SHOWN}"),
        (LOOKED_AT, "among the first 10"),
    ):
        shares = [
            100 * sum(bool(one.right & {*ranking[:depth]}) for one, ranking in pairs) / len(found)
            for pairs in ([(one, one.before) for one in found], [(one, one.after) for one in found])
        ]
        yield f'<tr><th scope="row">{what}</th>' + "".join(f"<td>{share:.1f} %</td>" for share in shares) + "</tr>"
    yield "</tbody></table>"
    yield (
        f'<p class="soft">Of {len(found)} queries, {len(answered)} have a right text among the first ten of one of the '
        f"rankings: it rose for {rose} and fell for {fell}. These are ordered by how much it rose, and {shown} at equal "
        "distances are shown.</p>"
    )


def _card(one: Answers, texts: Mapping[str, str], level: int, task: str) -> str:
    """One query: the first ranks of both rankings side by side, or one above the other where there is no room."""
    head, side = f"h{level}", f"h{level + 1}"
    columns = [
        f'<div>\n<{side} class="side">{name}</{side}>\n<ol>\n{_list(ranking, one.right, texts)}\n</ol>\n'
        f'<p class="soft"><small>{_where(ranking, one.right)}</small></p>\n</div>'
        for name, ranking in (("untrained", one.before), ("trained", one.after))
    ]
    wanted = (
        ""
        if one.right & {*one.before[:SHOWN], *one.after[:SHOWN]}
        else f"<p><small>Wanted: {_cut(texts[min(one.right)])}</small></p>\n"
    )
    return (
        f'<article>\n<{head} class="query">{_cut(one.part.queries[one.query])}{task}</{head}>\n'
        f'<div class="two">\n{"".join(columns)}\n</div>\n{wanted}</article>'
    )


def _list(ranking: Sequence[str], right: frozenset[str], texts: Mapping[str, str]) -> str:
    marks = {True: ("right", "\N{CHECK MARK}"), False: ("wrong", "\N{MULTIPLICATION SIGN}")}
    lines = []
    for document in ranking[:SHOWN]:
        kind, mark = marks[document in right]
        lines.append(
            f'<li class="{kind}"><span class="mark" role="img" aria-label="{kind}">{mark}</span>'
            f"<span>{_cut(texts[document])}</span></li>"
        )
    return "\n".join(lines)


def _where(ranking: Sequence[str], right: frozenset[str]) -> str:
    share = reciprocal(ranking, right)
    return f"first right text at rank {round(1 / share)}" if share else f"no right text among the first {len(ranking)}"


def _cut(text: str) -> str:
    """The beginning of a text in one line, escaped."""
    line = " ".join(text.split())
    if len(line) > LETTERS:
        line = line[:LETTERS].rsplit(" ", 1)[0] + " \N{HORIZONTAL ELLIPSIS}"
    return escape(line)
