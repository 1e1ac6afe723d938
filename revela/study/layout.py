"""Where everything stands below the folder of results: a function for each artefact, and no path is spelled elsewhere.

A part of a path may be a name or a wildcard, so the rules ask for `layout.batches("{corpus}", "{batch_size}")` and a
reader for `layout.batches("code", 16)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from revela.study.base import ConfigError
from revela.study.cell import Cell

# Files in the folder of a trained cell; a run under way keeps the last two beside its checkpoints.
SETTINGS, LOG, DYNAMICS = "settings.json", "log.jsonl", "dynamics.jsonl"


@dataclass(frozen=True)
class Layout:
    """The paths of one study's results, as strings below `root`."""

    root: str

    def __str__(self) -> str:
        return self.root

    # --- resources

    def dataset(self, dataset: str) -> str:
        return f"{self.root}/resources/datasets/{dataset}"

    def model(self, model: str) -> str:
        return f"{self.root}/resources/models/{model}"

    def package(self, package: str) -> str:
        return f"{self.root}/resources/packages/{package}"

    def punkt(self) -> str:
        return f"{self.root}/resources/punkt"

    # --- corpora

    def corpus(self, corpus: str) -> str:
        return f"{self.root}/corpora/{corpus}"

    def chunks(self, corpus: str, suffix: str = "parquet") -> str:
        """The chunks; with suffix `json` their counts."""
        return f"{self.corpus(corpus)}/chunks.{suffix}"

    def batches(self, corpus: str, batch_size: int | str, suffix: str = "parquet") -> str:
        """The batches of B chunks; with suffix `json` their counts."""
        return f"{self.corpus(corpus)}/bs{batch_size}/batches.{suffix}"

    def pairs(self, corpus: str, batch_size: int | str, suffix: str = "parquet") -> str:
        """Contriever's pairs; with suffix `json` their counts."""
        return f"{self.corpus(corpus)}/bs{batch_size}/pairs.{suffix}"

    def replug_scores(self, corpus: str, batch_size: int | str, lm: str, scoring: str) -> str:
        return f"{self.corpus(corpus)}/bs{batch_size}/replug-{lm}-{scoring}.npy"

    def group_sizes(self, corpus: str) -> str:
        return f"{self.corpus(corpus)}/group-sizes.json"

    def apart(self, corpus: str, suffix: str = "parquet") -> str:
        """The chunks that share no text with benchmarks; with suffix `json` a report on the others."""
        return f"{self.corpus(corpus)}/apart.{suffix}"

    def corpus_report(self, corpus: str) -> str:
        return f"{self.corpus(corpus)}/report.json"

    # of batches that are regrouped

    def chunk_embeddings(self, corpus: str, batch_size: int | str, system: str) -> str:
        """A row for each chunk of the batches, in their order."""
        return f"{self.corpus(corpus)}/bs{batch_size}/embeddings/{system}.npy"

    def chunk_embeddings_state(self, corpus: str, batch_size: int | str, system: str) -> str:
        """Of embeddings that are under way."""
        return f"{self.root}/checkpoints/embeddings/{corpus}/bs{batch_size}/{system}"

    def neighbours(
        self, corpus: str, batch_size: int | str, system: str, neighbours: int | str, suffix: str = "npz"
    ) -> str:
        """The nearest neighbours of each chunk; with suffix `json` how near they are."""
        return f"{self.corpus(corpus)}/bs{batch_size}/neighbours/{system}/k{neighbours}.{suffix}"

    def near_duplicates(self, corpus: str, batch_size: int | str, threshold: float | str) -> str:
        return f"{self.corpus(corpus)}/bs{batch_size}/near-duplicates-{threshold}.npy"

    def grouping(self, corpus: str, batch_size: int | str, suffix: str = "json") -> str:
        """What regrouping did to the batches; with suffix `md` a page with ten of them."""
        return f"{self.corpus(corpus)}/bs{batch_size}/grouping.{suffix}"

    def grouping_gain(self, corpus: str, batch_size: int | str, cell: Cell | str) -> str:
        """What a cell's models make of the batches."""
        return f"{self.corpus(corpus)}/bs{batch_size}/gain/{cell}.json"

    def grouping_by(self, corpus: str, batch_size: int | str, cell: Cell | str, suffix: str) -> str:
        """As `grouping`, with what a cell's models make of the batches before and after."""
        return f"{self.corpus(corpus)}/bs{batch_size}/grouping/{cell}.{suffix}"

    # --- trained cells

    def cell(self, cell: Cell | str) -> str:
        return f"{self.root}/models/{cell}"

    def cell_retriever(self, cell: Cell | str) -> str:
        return f"{self.cell(cell)}/retriever"

    def cell_lm(self, cell: Cell | str) -> str:
        return f"{self.cell(cell)}/lm"

    def cell_settings(self, cell: Cell | str) -> str:
        return f"{self.cell(cell)}/{SETTINGS}"

    def cell_log(self, cell: Cell | str) -> str:
        return f"{self.cell(cell)}/{LOG}"

    def cell_dynamics(self, cell: Cell | str) -> str:
        """What the watched batch looked like at some steps."""
        return f"{self.cell(cell)}/{DYNAMICS}"

    def checkpoints(self, cell: Cell | str) -> str:
        """Of a training that is under way; apart from its output, which Snakemake deletes before each attempt."""
        return f"{self.root}/checkpoints/{cell}"

    def usage(self, cell: Cell | str) -> str:
        """The account of what each attempt at a training used."""
        return f"{self.root}/usage/{cell}"

    def export(self, cell: Cell | str) -> str:
        return f"{self.root}/exports/{cell}"

    # --- evaluation

    def run(self, system: str, benchmark: str, task: str) -> str:
        return f"{self.root}/runs/{system}/{benchmark}/{task}.run.gz"

    def run_state(self, system: str, benchmark: str, task: str) -> str:
        """Of a run that is under way."""
        return f"{self.root}/checkpoints/run/{system}/{benchmark}/{task}"

    def embeddings(self, system: str) -> str:
        return f"{self.root}/embeddings/{system}"

    def api_answers(self, model: str) -> str:
        """What an API has answered so far."""
        return f"{self.root}/api/{model}.sqlite"

    def scores(self, system: str, benchmark: str) -> str:
        return f"{self.root}/scores/{system}/{benchmark}.json"

    def significance(self, system: str, other: str, benchmark: str) -> str:
        return f"{self.root}/significance/{system}/vs/{other}/{benchmark}.json"

    def anchors(self, suffix: str) -> str:
        return f"{self.root}/anchors.{suffix}"

    def timing(self, cell: Cell | str) -> str:
        """Seconds that relating the documents of a batch takes, by method and batch size."""
        return f"{self.root}/timing/{cell}.json"

    # --- tables and figures

    def table(self, table: str, suffix: str) -> str:
        return f"{self.root}/tables/{table}.{suffix}"

    def comparison(self, table: str, suffix: str) -> str:
        """A table beside its printed values."""
        return f"{self.root}/tables/{table}.compare.{suffix}"

    def lineage(self, table: str) -> str:
        return f"{self.root}/tables/{table}.lineage.json"

    def figure(self, figure: str, suffix: str) -> str:
        return f"{self.root}/figures/{figure}.{suffix}"

    def figure_data(self, figure: str) -> str:
        """The folder of the numbers behind a figure."""
        return f"{self.root}/figures/{figure}"

    def before_after(self, system: str, benchmark: str) -> str:
        """Answers of an untrained backbone and of the cell trained from it."""
        return f"{self.root}/before-after/{system}/{benchmark}.html"

    def report(self) -> str:
        """Tables, figures and pages in one archive."""
        return f"{self.root}/report.zip"

    def page(self) -> str:
        """What was trained on own text, and whether it helped."""
        return f"{self.root}/report.html"

    def check(self, suffix: str) -> str:
        """All comparisons on one page."""
        return f"{self.root}/check.{suffix}"

    def plan(self, suffix: str) -> str:
        return f"{self.root}/plan.{suffix}"

    def smoke(self, suffix: str) -> str:
        """What a smoke test measured, or its page."""
        return f"{self.root}/smoke.{suffix}"

    # --- what jobs leave beside their outputs

    def log(self, rule: str, *parts: str) -> str:
        return f"{self.root}/logs/{'/'.join((rule, *parts))}.log"

    def benchmark(self, rule: str, *parts: str) -> str:
        """Snakemake's measurement of a job."""
        return f"{self.root}/benchmarks/{'/'.join((rule, *parts))}.tsv"

    # --- tiny's own language models

    def tokenizer(self) -> str:
        return f"{self.root}/backbones/tokenizer"

    def backbone(self, backbone: str) -> str:
        return f"{self.root}/backbones/{backbone}"


def locate_cell(folder: str | Path) -> tuple[Layout, Cell] | None:
    """The results and the cell that a folder of a trained cell, or of its export, belongs to; None for any other."""
    parts = Path(folder).resolve().parts
    if len(parts) < 7 or parts[-6] not in ("models", "exports"):
        return None
    try:
        return Layout(str(Path(*parts[:-6]))), Cell.parse("/".join(parts[-5:]))
    except ConfigError:
        return None
