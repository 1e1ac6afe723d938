"""What the page of a study of one's own text shows, gathered from what its jobs have left."""

from __future__ import annotations

import csv
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from revela.command.comparison import TABLE, difference
from revela.command.display import STAGES, clock, stage_of
from revela.errors import RevelaError
from revela.paper.before_after import shares_and_cards
from revela.paper.chart import Line, bars, chart
from revela.paper.logs import comparable, read_log
from revela.paper.own_page import Page, Picture, Score, write_page
from revela.paper.values import columns
from revela.plan.usage import total
from revela.provenance import MANIFEST, read_manifest
from revela.study.specification import score_spec
from revela.study.study import load
from revela.study.system import UNTRAINED
from revela.study.tables import table_spec

if TYPE_CHECKING:
    from revela.command.comparison import Difference
    from revela.study.cell import Cell
    from revela.study.layout import Layout
    from revela.study.study import Study

BARS = 24  # of a histogram at most
LABELS = {"Untrained": "Before training", "Revela": "After training"}
PYTHON = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{retriever}")
queries = model.encode_query(["how to sort a list"])
documents = model.encode_document(["sorted(values) returns a new list.", "open(path) opens a file."])
print(model.similarity(queries, documents))"""


class ReportError(RevelaError):
    """A folder that no page can be made of. The message is one line."""


def write_report(out: str | Path) -> Path:
    """Writes `report.html` into the folder of a study that `revela train` wrote, and returns its path.

    Raises:
        ReportError: There is no such study, or its retriever is not trained yet.
        ConfigError, PaperError, ProvenanceError: A file of it cannot be read.
    """
    config = Path(out, "config.yaml")
    if not config.is_file():
        raise ReportError(f"{out}: no config.yaml; valid: the folder that `revela train --out` was given")
    study = load(config)
    if study.config.scale != "own" or len(study.runs) != 1:
        raise ReportError(f"{config}: not of `revela train`; a larger study is packed by snakemake --report")
    cell, layout = study.runs[0].cell, study.layout
    if not Path(layout.cell(cell), MANIFEST).is_file():
        raise ReportError(
            f"{layout.cell(cell)}: not trained yet; the `revela train` that wrote {config} goes on with it"
        )
    path = Path(layout.page())
    write_page(_page(study, cell), path)
    return path


def _page(study: Study, cell: Cell) -> Page:
    layout, settings = study.layout, _read(study.layout.cell_settings(cell))
    manifest, log = read_manifest(layout.cell(cell)), read_log(layout.cell_log(cell))
    [source] = study.config.corpora[cell.corpus].sources
    files = study.config.datasets[source.dataset].files
    text, chunks = read_manifest(layout.dataset(source.dataset)), _read(layout.chunks(cell.corpus, "json"))
    batches = _read(layout.batches(cell.corpus, cell.batch_size, "json"))
    retriever = f"{layout.root}/retriever"
    compared = _compared(study, cell)
    return Page(
        title=f"A retriever for {files}",
        lead=f"{cell.retriever} learned from {_many(chunks['documents'], 'document')} by next-token prediction: "
        f"{_many(manifest['steps'], 'step')} in {_duration(manifest['wall_seconds'])} on {_device(manifest)}.",
        curves=list(_curves(log, settings["batches_per_step"])),
        text=dict(_text(files, text, chunks, batches, source.hold_out)),
        lengths=[_lengths(chunks)],
        passed_over=text.get("passed_over", {}),
        cost=dict(_cost(manifest, log, total(layout.usage(cell)))),
        stages=list(_stages(layout)),
        settings=dict(_settings(study, cell, settings)),
        all_settings={name: json.dumps(value) for name, value in settings.items()},
        search=f"revela search {shlex.join([retriever, files])} 'how to sort a list'",
        python=PYTHON.format(retriever=retriever),
        lineage=dict(_lineage(study, cell, manifest, text)),
        **compared,
    )


def _compared(study: Study, cell: Cell) -> dict[str, Any]:
    """The table and the cards; nothing for a study without a comparison."""
    found = difference(study, cell)
    if found is None:
        return {}
    spec, layout = table_spec(study, TABLE), study.layout
    scores = [Score(LABELS.get(one.label, one.label), one.values[0], one.margins[0]) for one in columns(spec, layout)]
    scored = score_spec(study, cell.path, found.benchmark)
    datasets = {task.dataset: layout.dataset(task.dataset) for task in scored.tasks}
    before, after = (
        {task.task: layout.run(system, found.benchmark, task.task) for task in scored.tasks}
        for system in (UNTRAINED + cell.retriever, cell.path)
    )
    return {
        "caption": spec.table.caption,
        "scores": scores,
        "verdict": _verdict(found),
        "helped": found.helped,
        "cards": shares_and_cards(scored, datasets, before, after, level=3),
    }


def _verdict(found: Difference) -> str:
    """The difference in a sentence, and what may help where training did not."""
    change = f"{abs(found.difference):.1f} points"
    interval = f"95 % interval {_signed(found.low)} to {_signed(found.high)}, {found.queries} queries"
    chance = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    if found.helped:
        return f"Training raised nDCG@10 by {change} ({interval}, {chance})."
    moved = "lowered nDCG@10" if found.high < 0 else "did not measurably change nDCG@10: it moved"
    advice = "More text, more steps or another backbone may help."
    return f"Training {moved} by {_signed(found.difference)} points ({interval}, {chance}). {advice}"


def _curves(log: list[dict[str, Any]], batches_per_step: int) -> Iterator[Picture]:
    """The loss, and the weight on chunks of the same document where it was logged."""
    frame = pd.DataFrame(log)
    smooth = frame["loss"].rolling(max(1, len(frame) // 20)).mean()
    lines = [Line("raw", frame["step"], frame["loss"]), Line("smooth", frame["step"], smooth)]
    said = f"{smooth.dropna().iloc[0]:.2f} nats a token at first, {smooth.iloc[-1]:.2f} in the end."
    title = "Loss of next-token prediction"
    yield Picture(title, said, chart(lines, f"{title}: {said}", x_label="step"))
    if "same_document" not in frame or frame["same_document"].isna().any():  # batches that do not name their documents
        return
    seen = (frame["step"] - 1) * batches_per_step  # before the step
    uniform = frame["same_document_uniform"].mean()
    share = frame[["same_document", "same_document_uniform"]].set_axis(["share", "uniform"], axis=1)
    smooth = comparable(share, uniform, max(1, len(frame) // 10))
    title = "Weight on chunks of the same document"
    said = (
        f"Sim: {100 * smooth.iloc[0]:.0f} % at first, {100 * smooth.iloc[-1]:.0f} % in the end; dashed: a uniform Sim."
    )
    level = Line("level", [seen.iloc[0], seen.iloc[-1]], [uniform, uniform])
    lines = [level, Line("raw", seen, share["share"]), Line("smooth", seen, smooth)]
    yield Picture(title, said, chart(lines, f"{title}: {said}", x_label="batches of training", percent=True))


def _text(
    files: str, manifest: Mapping[str, Any], chunks: Mapping[str, Any], batches: Mapping[str, Any], hold_out: int | None
) -> Iterator[tuple[str, str]]:
    yield "from", files
    yield "files read", f"{manifest['count']:,}"
    yield "files passed over", f"{sum(manifest.get('passed_over', {}).values()):,}"
    yield (
        "documents",
        f"{chunks['documents']:,}" + (f", and {chunks['empty']:,} without text" if chunks["empty"] else ""),
    )
    if hold_out:
        yield "held out", f"every {hold_out}th document, which is not among these, for the comparison"
    yield "words", f"{chunks['words']:,}"
    yield "chunks", f"{chunks['chunks']:,}, of {_quantile(chunks['words_of_chunk'], 0.5)} words in the median"
    yield "chunks of a document", _spread(chunks["chunks_of_document"])
    yield "batches", f"{batches['batches']:,} of {batches['batch_size']} chunks"


def _lengths(chunks: Mapping[str, Any]) -> Picture:
    """The words of a chunk."""
    counts = {int(words): number for words, number in chunks["words_of_chunk"].items()}
    width = -(-max(counts) // BARS)
    binned: dict[int, int] = defaultdict(int)
    for words, number in counts.items():
        binned[(words - 1) // width] += number
    found = [(place * width + 0.5, (place + 1) * width + 0.5, binned[place]) for place in range(max(binned) + 1)]
    said = f"{_spread(chunks['words_of_chunk'])}."
    return Picture("Words of a chunk", said, bars(found, f"Words of a chunk: {said}", x_label="words"))


def _cost(
    manifest: Mapping[str, Any], log: list[dict[str, Any]], usage: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    yield "training", f"{_duration(manifest['wall_seconds'])} on {_device(manifest)}"
    if usage and usage["attempts"] > 1:
        yield "attempts", f"{usage['attempts']}, {_duration(usage['seconds'])} together"
    if usage and usage["cpu_seconds"]:
        yield "CPU time", _duration(usage["cpu_seconds"])
    if log[-1]["gpu_hours"]:
        yield "GPU-hours", f"{log[-1]['gpu_hours']:.2f}"
    if memory := max((line.get("peak_memory_gb", 0) for line in log), default=0):
        yield "peak memory", f"{memory:.1f} GiB of one process"
    if all("tflops" in line for line in log):
        done = sum(line["tflops"] * line["seconds"] for line in log) * manifest["processes"]
        rate = done / sum(line["seconds"] for line in log)
        yield "operations", f"{done:,.1f} TFLOP, {1000 * rate:,.0f} GFLOP a second"
    if "tokens_per_second" in log[-1]:
        speed = sum(line["tokens_per_second"] for line in log) / len(log)
        yield "speed", f"{speed:,.0f} tokens a second"


def _stages(layout: Layout) -> Iterator[tuple[str, int, str]]:
    """(stage, jobs, their time together), as Snakemake has measured them."""
    start = Path(layout.benchmark("x")).parent
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in glob(layout.benchmark("**", "*"), recursive=True):
        rule = Path(path).relative_to(start).parts[0].removesuffix(".tsv")
        with open(path, newline="", encoding="utf-8") as file:
            seconds[stage_of(rule)] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    for stage in STAGES:
        if seconds[stage]:
            yield stage, len(seconds[stage]), clock(sum(seconds[stage]))


def _settings(study: Study, cell: Cell, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gate, lora = settings["cross_attention"]["gate"], settings["lora"]
    trained = f"LoRA of rank {lora['rank']}" if lora else "all weights trained"
    yield "retriever", f"{cell.retriever}, {trained}"
    yield "language model", f"{cell.lm}, {'frozen' if settings['freeze_lm'] else 'trained as well'}, gate {gate:g}"
    yield "chunks", f"{study.config.chunking.max_words} words at most"
    yield "batch", f"{cell.batch_size} chunks, {settings['batches_per_step']} a step"
    yield "learning rate", f"{settings['learning_rate']:g}, {settings['warmup_steps']} steps of warm-up"
    yield "temperature", f"{settings['temperature']:g}"
    yield "prefixes", f"{settings['query_prefix']!r} and {settings['passage_prefix']!r}"
    yield "texts are cut after", f"{settings['retriever_max_length']} tokens"
    yield "precision", {"bf16": "bfloat16", "fp32": "float32"}[settings["precision"]]
    yield "seed", str(settings["seed"])


def _lineage(
    study: Study, cell: Cell, manifest: Mapping[str, Any], text: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    yield "cell", cell.path
    yield "code", ", ".join(filter(None, manifest["commits"])) or "not a git checkout"
    yield "models", ", ".join(f"{model} ({study.models[model].source})" for model in cell.models)
    yield "text", f"sha256 {text['sha256']}"
    yield "batches", f"sha256 {manifest['inputs']['data']}"
    yield "trained retriever", f"sha256 {manifest['retriever_sha256']}"
    yield "libraries", ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())


def _spread(counts: Mapping[str, int]) -> str:
    """Where most of some numbers lie.

    >>> _spread({"1": 90, "7": 10})
    '1 in the median, 7 at most'
    """
    return f"{_quantile(counts, 0.5):,} in the median, {max(map(int, counts)):,} at most"


def _quantile(counts: Mapping[str, int], share: float) -> int:
    """The number below or at which a share of counted numbers lies."""
    left = share * sum(counts.values())
    for value in sorted(map(int, counts)):
        left -= counts[str(value)]
        if left <= 0:
            return value
    raise ValueError("nothing was counted")


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(45), _duration(405), _duration(7805)
    ('45 s', '6 min 45 s', '2 h 10 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _device(manifest: Mapping[str, Any]) -> str:
    device = "CPU" if manifest["device"] == "cpu" else manifest["device"]
    return f"{manifest['processes']} x {device}" if manifest["processes"] > 1 else f"the {device}"


def _read(path: str) -> dict[str, Any]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read ({error})") from None
