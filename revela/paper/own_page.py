"""The page of a study of one's own text: one HTML file that shows what was trained, whether it helped, and how to use it.

It loads nothing from anywhere, and can be read on a telephone, in the dark, and by keyboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from revela.files import atomic_write
from revela.paper import chart
from revela.paper.before_after import HEAD

Facts = Mapping[str, Any]  # what it is -> its value


@dataclass(frozen=True)
class Score:
    """A system in the table: its value and half the width of its interval, in percent."""

    label: str
    value: float
    margin: float


@dataclass(frozen=True)
class Picture:
    """An SVG with its title, and a sentence on what it shows."""

    title: str
    said: str
    svg: str


@dataclass(frozen=True)
class Page:
    """All that the page shows. Pictures and cards are HTML; an empty one is left out, and so is an empty section."""

    title: str
    lead: str
    caption: str = ""
    scores: Sequence[Score] = ()
    verdict: str = ""
    helped: bool = True
    cards: str = ""
    curves: Sequence[Picture] = ()
    text: Facts = field(default_factory=dict)
    lengths: Sequence[Picture] = ()
    passed_over: Facts = field(default_factory=dict)
    cost: Facts = field(default_factory=dict)
    stages: Sequence[tuple[str, int, str]] = ()  # stage, jobs, time
    settings: Facts = field(default_factory=dict)
    all_settings: Facts = field(default_factory=dict)
    search: str = ""
    python: str = ""
    lineage: Facts = field(default_factory=dict)


STYLE = """
a { color: var(--own) } :focus-visible { outline: 2px solid var(--own); outline-offset: 2px }
.skip { position: absolute; left: -999rem } .skip:focus { position: static }
header { border-bottom: 1px solid var(--line); padding-bottom: .75rem }
header p { font-size: 1.05rem; max-width: 46rem }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; margin: .5rem 0 0 }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.25rem 0 .5rem }
main > section > p { max-width: 46rem }
h3:not([class]) { font-size: 1rem; margin: 1.25rem 0 .25rem }
table { font-variant-numeric: tabular-nums } .scroll { overflow-x: auto }
thead th, thead th:first-child { font-weight: 600; font-size: .875rem; color: var(--soft); vertical-align: bottom }
.scores { width: 100%; max-width: 40rem } .scores td, .scores tbody th { white-space: nowrap }
.scores td:last-child { width: 50%; padding-right: 0 } .scores tbody .own :not(span) { font-weight: 600 } .meter { display: block; height: .7rem; border-radius: 2px; background: var(--soft) }
.own .meter { background: var(--own) }
.note { border-left: 4px solid var(--own); background: var(--card); padding: .5rem .75rem; margin: .5rem 0 1rem;
  max-width: 46rem }
.note.warning { border-color: var(--caution) }
:root { --caution: #9a6700 } @media (prefers-color-scheme: dark) { :root { --caution: #d29922 } }
.facts { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.25rem; margin: .75rem 0 }
.facts dt { color: var(--soft) } .facts dd { margin: 0; overflow-wrap: anywhere }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem 2rem;
  margin: .75rem 0 }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem; overflow-x: auto;
  font-size: .85rem; line-height: 1.45 } code { font-family: ui-monospace, monospace }
details { margin: .75rem 0 } summary { cursor: pointer; color: var(--own) }
.hashes dd { font: .85rem/1.6 ui-monospace, monospace }
footer { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: .5rem }
@media (max-width: 30rem) { .facts { grid-template-columns: 1fr; gap: 0 } .facts dd { margin-bottom: .5rem }
  .scores td, .scores th { padding-right: .6rem }
  .two li > span:last-child { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden } }
@media print { nav, .skip { display: none } }
"""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ page.title }} - Revela</title>
{{ head | safe }}
<style>{{ style | safe }}</style>
</head>
<body>
{%- macro facts(found, kind="") %}
<dl class="facts {{ kind }}">
{%- for name, value in found.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>
{%- endmacro %}
{%- macro pictures(found) %}
<div class="pictures">
{%- for one in found %}<figure><figcaption><b>{{ one.title }}</b> {{ one.said }}</figcaption>{{ one.svg | safe }}</figure>
{% endfor %}</div>
{%- endmacro %}
<a class="skip" href="#main">To the content</a>
<header>
<h1>{{ page.title }}</h1>
<p>{{ page.lead }}</p>
<nav aria-label="Sections"><ul>
{%- for id, name in sections.items() %}<li><a href="#{{ id }}">{{ name }}</a></li>{% endfor -%}
</ul></nav>
</header>
<main id="main">
<section aria-labelledby="helped">
<h2 id="helped">{{ sections.helped }}</h2>
{% if page.scores %}
<p class="note{{ "" if page.helped else " warning" }}">{{ page.verdict }}</p>
<p>{{ page.caption }}</p>
<table class="scores">
<thead><tr><th scope="col">system</th><th scope="col">nDCG@10 (%)</th><th scope="col">95 % interval</th><td></td></tr></thead>
<tbody>
{% for score in page.scores %}<tr{% if loop.last %} class="own"{% endif %}><th scope="row">{{ score.label }}</th>
<td>{{ "%.1f" | format(score.value) }}</td><td>± {{ "%.1f" | format(score.margin) }}</td>
<td aria-hidden="true"><span class="meter" style="width: {{ "%.1f" | format(score.value) }}%"></span></td></tr>
{% endfor %}</tbody>
</table>
{% else %}<p>Nothing was compared: the text has too few documents to hold some out, or that was not wanted. With
<code>--benchmark</code>, <code>revela train</code> compares on questions of your own.</p>
{% endif %}
</section>
{% if page.curves %}<section aria-labelledby="learned">
<h2 id="learned">{{ sections.learned }}</h2>
{{ pictures(page.curves) }}
</section>{% endif %}
{% if page.cards %}<section aria-labelledby="finds">
<h2 id="finds">{{ sections.finds }}</h2>
{{ page.cards | safe }}
</section>{% endif %}
<section aria-labelledby="use">
<h2 id="use">{{ sections.use }}</h2>
<p>On the command line:</p>
<pre tabindex="0"><code>{{ page.search }}</code></pre>
<p>In Python, with sentence-transformers:</p>
<pre tabindex="0"><code>{{ page.python }}</code></pre>
</section>
<section aria-labelledby="text">
<h2 id="text">{{ sections.text }}</h2>
{{ facts(page.text) }}
{% if page.passed_over %}<h3>Passed over</h3>
<p>Files that are neither text nor tables by their suffix.</p>
<table><thead><tr><th scope="col">suffix</th><th scope="col">files</th></tr></thead><tbody>
{% for suffix, number in page.passed_over.items() %}<tr><th scope="row">{{ suffix }}</th><td>{{ "{:,}".format(number) }}</td></tr>
{% endfor %}</tbody></table>{% endif %}
{% if page.lengths %}{{ pictures(page.lengths) }}{% endif %}
</section>
<section aria-labelledby="cost">
<h2 id="cost">{{ sections.cost }}</h2>
{{ facts(page.cost) }}
<table><thead><tr><th scope="col">stage</th><th scope="col">jobs</th><th scope="col">h:min:s</th></tr></thead><tbody>
{% for stage, jobs, time in page.stages %}<tr><th scope="row">{{ stage }}</th><td>{{ jobs }}</td><td>{{ time }}</td></tr>
{% endfor %}</tbody></table>
</section>
<section aria-labelledby="settings">
<h2 id="settings">{{ sections.settings }}</h2>
{{ facts(page.settings) }}
<details><summary>All settings of the training</summary>
<div class="scroll" tabindex="0" role="region" aria-label="All settings of the training">
<table><thead><tr><th scope="col">setting</th><th scope="col">value</th></tr></thead><tbody>
{% for name, value in page.all_settings.items() %}<tr><th scope="row"><code>{{ name }}</code></th><td><code>{{ value }}</code></td></tr>
{% endfor %}</tbody></table></div></details>
</section>
<section aria-labelledby="lineage">
<h2 id="lineage">{{ sections.lineage }}</h2>
{{ facts(page.lineage, "hashes") }}
</section>
</main>
<footer><p class="soft"><small>Written by <code>revela report</code>. The page stands by itself and loads nothing.</small></p></footer>
</body>
</html>
"""


def write_page(page: Page, output: str | Path) -> None:
    """Write the page. Equal contents give equal bytes."""
    sections = {
        "helped": "Did training help?",
        "learned": "How it learned" if page.curves else "",
        "finds": "What it finds" if page.cards else "",
        "use": "Use it",
        "text": "The text",
        "cost": "What it cost",
        "settings": "Settings",
        "lineage": "Where it comes from",
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    html = environment.from_string(TEMPLATE).render(
        page=page,
        sections={id: name for id, name in sections.items() if name},
        head=HEAD,
        style=STYLE + chart.STYLE,
    )
    with atomic_write(output) as partial:
        partial.write_text(html, encoding="utf-8")
