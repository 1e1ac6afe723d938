"""Specifications of corpora without a study around them, made by the functions that plan the workflow."""

from types import SimpleNamespace

from revela.study.settings import Chunking, Corpus
from revela.study.specification import BatchSpec, ChunkSpec, GroupSizeSpec, PairSpec, batch_spec, chunk_spec, pair_spec


def _study(corpus: Corpus, *, seed: int = 0, max_words: int = 120):
    config = SimpleNamespace(corpora={"mine": corpus}, seed=seed, chunking=Chunking(max_words=max_words))
    return SimpleNamespace(config=config)


def chunks_of(corpus: Corpus, max_words: int) -> ChunkSpec:
    return chunk_spec(_study(corpus, max_words=max_words), "mine")


def batches_of(corpus: Corpus, batch_size: int, seed: int = 0) -> BatchSpec:
    return batch_spec(_study(corpus, seed=seed), "mine", batch_size)


def pairs_of(corpus: Corpus, batch_size: int, seed: int = 0) -> PairSpec:
    return pair_spec(_study(corpus, seed=seed), "mine", batch_size)


def group_sizes_of(corpus: Corpus, batch_size: int) -> GroupSizeSpec:
    """As the workflow compares them, but at any batch size."""
    return GroupSizeSpec(batches=batches_of(corpus, batch_size), documents=corpus.documents)
