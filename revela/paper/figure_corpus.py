"""The figure of a corpus: what its chunks, documents and batches are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from revela.paper.canvas import STYLE, WIDTH, line_styles, save


def corpus_figure(report: Mapping[str, Any], output: Sequence[str | Path]) -> None:
    """Draw the distributions of a corpus: words of a chunk, chunks of a document, documents of a batch.

    Args:
        report: The counts, as `revela.text.report.write_report` writes them. Panels without counts are left out.
        output: Files. Their suffixes, .pdf or .png, name the format.
    """
    chunks, batches, groups = report["chunks"], report["batches"], report["group_sizes"]
    curves = {
        ("words of a chunk", "chunks, cumulative (%)"): {f"B = {b}": c["words_of_chunk"] for b, c in batches.items()},
        ("documents of a batch", "batches (%)"): {
            f"B = {b}: {c['batches']:,} batches": c["documents_of_batch"] for b, c in batches.items()
        },
    }
    if chunks:
        label = f"{chunks['documents']:,} documents,\n{chunks['chunks']:,} chunks"
        curves["chunks of a document", "documents, cumulative (%)"] = {label: chunks["chunks_of_document"]}
    if groups:
        stated = ", ".join(f"{number:,} {what}" for what, number in groups["stated"].items() if number)
        curves["documents of a batch of 16", "batches (%)"] = {
            f"groups of {n}: {c['documents']:,} documents in {c['batches']:,} batches": c["documents_of_batch"]
            for n, c in groups["group_size"].items()
        }
    known = {panel: lines for panel, lines in curves.items() if all(lines.values())}
    across = 3 if len(known) == 3 else min(len(known), 2)
    down = len(known) // across
    with rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH if across > 1 else 3.4, 2.2 * down), layout="constrained")
        for ax, ((what, share), lines) in zip(canvas.subplots(down, across, squeeze=False).flat, known.items()):
            for (label, counts), style in zip(lines.items(), line_styles()):
                values = np.array(sorted((int(value), number) for value, number in counts.items()))
                shown = np.cumsum(values[:, 1]) if "cumulative" in share else values[:, 1]
                marked = 1 if len(values) < 20 else 0.1
                ax.plot(values[:, 0], 100 * shown / values[:, 1].sum(), label=label, markevery=marked, **style)
            if what == "chunks of a document":
                ax.set_xscale("log")
            else:
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.set(xlabel=what, ylabel=share, ylim=(0, None))
            title = f"the paper: {stated}" if "of 16" in what else None
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=6, title=title, title_fontsize=6)
        save(canvas, output)
