"""Texts as files: Markdown as a self-contained HTML page, and one text in several formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import markdown

from revela.files import atomic_write

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; white-space: nowrap }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
thead th { border-bottom: 2px solid #222 }
tbody tr:last-child td { border-bottom: 2px solid #222 }
.fail { background: #7a1f1f; color: #fff } .close { background: #f3e3b3 } .ok { background: #d7e8f7 }
.none { color: #777 }
"""


def html_body(text: str) -> str:
    """Markdown as the body of a page; each wide table scrolls on its own."""
    body = markdown.markdown(text, extensions=["tables", "toc"])
    return body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def html_page(title: str, body: str, *, head: str = f"<style>{STYLE}</style>") -> str:
    """A whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def write_texts(texts: Mapping[str, str], output: Mapping[str, str | Path]) -> None:
    """Write the formats that are asked for; texts: suffix -> text, output: suffix -> file."""
    for suffix, path in output.items():
        with atomic_write(path) as partial:
            partial.write_text(texts[suffix], encoding="utf-8")
