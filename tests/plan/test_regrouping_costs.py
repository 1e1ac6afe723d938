"""What a round of the paper's 1B costs, by its formulas."""

import pytest

from revela.plan import flops
from revela.plan.costs import Costs
from revela.study.sizes import load_sizes
from revela.study.study import load

CELL, CHUNKS = "revela/code/llama-3.2-1b/llama-3.2-1b/bs16", 16 * 358_763
CORPUS = {"corpus": "code", "batch_size": "16"}


@pytest.fixture
def costs():
    return Costs(load("config/config.yaml"), load_sizes())


def test_all_chunks_are_embedded_once(costs):
    """Tokens of a mean chunk and three more, 2,048 numbers in float16 each, on as many GPUs as hours need."""
    found = costs.of("chunk_embeddings", {**CORPUS, "system": CELL})
    assert found.operations == pytest.approx(CHUNKS * flops.forward(costs.shape("llama-3.2-1b"), [156]))
    assert found.disk == pytest.approx(CHUNKS * 2048 * 2 / 1e9)
    assert found.gpus == 4 and 0.8 < found.gpu_hours / (found.operations / (312e12 * 0.7) / 3600) < 1.5


def test_other_chunks_and_neighbours_cost_in_proportion(costs):
    wiki = {"corpus": "wiki", "batch_size": "16"}
    for rule, names in (("chunk_embeddings", {"system": CELL}), ("near_duplicates", {"threshold": "0.8"})):
        ours, less = (costs.of(rule, {**corpus, **names}) for corpus in (CORPUS, wiki))
        work = [cost.seconds * max(1, cost.gpus) for cost in (less, ours)]
        assert work[0] / work[1] == pytest.approx(320_000 / 358_763, rel=0.05)
    near = [costs.of("neighbours", {**CORPUS, "system": CELL, "neighbours": number}) for number in ("32", "64")]
    assert near[0].disk == pytest.approx(CHUNKS * 32 * 8 / 1e9) and near[1].disk == 2 * near[0].disk
    assert near[0].memory > CHUNKS * 2048 * 2 / 1e9  # the vectors


def test_a_measurement_reads_each_batch_once_and_predicts_it_three_times(costs):
    """A hundred batches of 16: queries and passages of the retriever, two streams of the language model."""
    found = costs.of("grouping_gain", {**CORPUS, "cell": CELL})
    shape = costs.shape("llama-3.2-1b")
    texts = {1: 32, 6: 16}  # passes -> texts
    assert found.operations == pytest.approx(100 * sum(n * k * flops.forward(shape, [153]) for n, k in texts.items()))
    assert (
        found.operations
        == costs.of("grouping_gain", {"corpus": "code+r1", "batch_size": "16", "cell": CELL}).operations
    )
    assert found.gpus == 1 and found.seconds < 600


def test_a_regrouped_corpus_has_as_many_batches(costs):
    assert costs.batches("code+r1") == costs.batches("code") == 358_763
    alike = [costs.of("train", {"cell": CELL.replace("code", corpus)}) for corpus in ("code", "code+r1")]
    assert alike[0] == alike[1]
