"""What the jobs of regrouped corpora cost: embeddings of all chunks, their neighbours, near-duplicates, batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from revela.plan import encoding, flops
from revela.plan.cost import LIGHT, Cost
from revela.study.cell import Cell
from revela.study.grouping import neighbour_spec
from revela.study.sizes import TaskSize

if TYPE_CHECKING:
    from revela.plan.costs import Costs

GB = 1e9
# Assumed, of one core. Synthetic vectors, 5 million x 512, took a twelfth of what this says (benchmarks/grouping.py). How
# many lists a search has to visit depends on the vectors, so text may need more.
PRODUCTS, DECODED = 2e10, 1e10  # operations a second of inner products: exact; of vectors in float16
LISTS, PROBED = 4, 0.01  # lists of the inverted file, times the root of the chunks; share of them that a search visits
POSTINGS = 1e8  # chunks scored a second for one chunk's BM25
HASHED = 0.3e6  # bytes a second of text whose near-duplicates are sought
GROUPED = 2e6  # neighbours a second that are looked at for batches


def chunk_embeddings(costs: Costs, corpus: str, batch_size: str, system: str) -> Cost:
    """One GPU encodes all of it, or several share it as an evaluation's."""
    encoder, chunks, compute = costs.study.system(system), _chunks(costs, corpus, batch_size), costs.compute
    row = costs.study.models[name := encoder.models[-1]]
    precision = encoding.precision_of(encoder, row.kind, costs.parameters(row), costs.folder(name))
    length = costs.chunk_tokens(encoder.max_length) + 3
    operations, hidden = costs.read(name, [(chunks, length)])
    alone = costs.forward_pass(operations, costs.width(name) * chunks * length, precision)
    gpus, share = encoding.gpus_and_share(compute, chunks, alone.seconds)
    processes = gpus or compute.evaluation_processes
    weights = flops.BYTES[precision] * costs.parameters(row)
    size = TaskSize(documents=chunks, queries=1, document_chars=round(costs.chunk_bytes), query_chars=1)
    memory = 4 + max(1, processes) * encoding.process_memory(compute, size, weights, hidden) / GB
    return replace(alone, seconds=share * alone.seconds, gpus=gpus, disk=2 * chunks * hidden / GB, memory=memory)


def neighbours(costs: Costs, corpus: str, batch_size: str, system: str, neighbours: str) -> Cost:
    """Each chunk is compared with all others, or with the centres of all lists and the chunks of the nearest ones."""
    chunks, cores = _chunks(costs, corpus, batch_size), costs.compute.data_threads
    hidden = costs.read(costs.study.system(system).models[-1], [])[1]
    exact = neighbour_spec(costs.study, corpus, batch_size, system, neighbours).is_exact(chunks)
    compared = chunks if exact else LISTS * chunks**0.5 + PROBED * chunks
    return Cost(
        seconds=LIGHT + 2 * chunks * compared * hidden / ((PRODUCTS if exact else DECODED) * cores),
        cores=cores,
        disk=8 * chunks * int(neighbours) / GB,
        memory=4 + 2 * chunks * (hidden + 12 * int(neighbours)) / GB,
    )


def neighbours_bm25(costs: Costs, corpus: str, batch_size: str, system: str, neighbours: str) -> Cost:
    """On one core; it grows with the square of the chunks, so it is for small corpora."""
    chunks = _chunks(costs, corpus, batch_size)
    text = chunks * costs.chunk_bytes
    return Cost(
        seconds=LIGHT + chunks * chunks / POSTINGS,
        disk=8 * chunks * int(neighbours) / GB,
        memory=4 + 10 * text / GB,
    )


def near_duplicates(costs: Costs, corpus: str, batch_size: str, threshold: str) -> Cost:
    """Signatures of all chunks, by one core."""
    chunks = _chunks(costs, corpus, batch_size)
    text = chunks * costs.chunk_bytes
    return Cost(seconds=LIGHT + text / HASHED, disk=8 * chunks / GB, memory=4 + (3 * text + 1200 * chunks) / GB)


def regroup(costs: Costs, corpus: str, batch_size: str) -> Cost:
    """Text is read and written as for other batches; neighbours are held and looked at."""
    spec, chunks = costs.study.config.corpora[corpus].regroup, _chunks(costs, corpus, batch_size)
    found = chunks * spec.neighbours if costs.study.grouped_by(corpus) else 0
    text = costs.of("batches", {"corpus": corpus, "batch_size": batch_size})
    return replace(text, seconds=text.seconds + found / GROUPED, memory=text.memory + 40 * found / GB)


def grouping_gain(costs: Costs, corpus: str, batch_size: str, cell: str) -> Cost:
    """Each batch measured is embedded once, and runs through the language model's two streams under three kinds of Sim."""
    parts = Cell.parse(cell)
    settings = costs.study.training_settings(parts)
    number = min(costs.study.config.evaluation.gain_batches, costs.batches(corpus)) * int(batch_size) / parts.batch_size
    lengths = costs.lengths(parts, settings.first_half)
    read = [(parts.retriever, lengths["query"] + lengths["passage"]), (parts.lm, 3 * 2 * lengths["lm"])]
    operations = number * sum(flops.forward(costs.shape(name), texts) for name, texts in read)
    width = number * sum(costs.width(name) * sum(texts) for name, texts in read)
    weights = sum(costs.parameters(costs.study.models[name]) for name, _ in read)
    return replace(costs.forward_pass(operations, width, settings.precision), memory=8 + 4 * weights / GB)


def _chunks(costs: Costs, corpus: str, batch_size: str) -> int:
    return costs.batches(corpus) * int(batch_size)


RULES = {
    one.__name__: one
    for one in (chunk_embeddings, neighbours, neighbours_bm25, near_duplicates, regroup, grouping_gain)
}
