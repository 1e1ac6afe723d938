"""The text of tiny's backbones: a tokenizer, and the rows of tokens that they are pretrained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer for identifiers and prose.

    Words are split at whitespace, punctuation and camelCase humps, and lower-cased. Whitespace itself is no token, so
    `splitLines`, `split_lines` and "split lines" share their tokens.
    A text is encoded as BOS + tokens, as Llama's tokenizer does.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex("(?<=[a-z0-9])(?=[A-Z])"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]"), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=2048
    )


def read_chunks(path: Path) -> list[list[str]]:
    """Chunks of each document of a `chunks.parquet`, documents of one file together and in their order."""
    table = pq.read_table(path, columns=["document", "chunks"]).sort_by("document")
    return table.column("chunks").to_pylist()


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[list[str]], limit: int) -> list[list[list[int]]]:
    """Token ids of each document's chunks without special tokens, each chunk cut at `limit`."""
    chunks = [chunk for document in documents for chunk in document]
    ids = iter(tokenizer(chunks, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"])
    return [list(islice(ids, len(document))) for document in documents]


def contexts(documents: list[list[list[int]]], length: int, bos: int, eos: int) -> np.ndarray:
    """Rows of BOS, then consecutive chunks of one document with EOS after each; [rows, length] of token ids.

    The rest of a row is filled with the next document, so no token is a pad.
    """
    rows, row = [], [bos]
    for chunks in documents:
        for ids in chunks:
            row.extend([*ids, eos])
            if len(row) >= length:
                rows.append(row[:length])
                row = [bos]
    return np.array(rows, dtype=np.int32)


def repetition(generator: np.random.Generator, row: np.ndarray) -> np.ndarray:
    """A row [L] that repeats a stretch of the given row's tokens in random order: only copying predicts it.

    The tokens are those of a real row, because ids drawn from the whole vocabulary are seen too rarely to be copied.
    """
    span = int(generator.integers(8, len(row) // 2))
    stretch = generator.permutation(row[1:])[:span]
    return np.concatenate([row[:1], np.tile(stretch, len(row) // span + 1)])[: len(row)]
