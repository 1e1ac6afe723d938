"""Whether models, tokenizers, lengths and chunks go together: examined before the first job, and before the first step.

Models are examined by their configurations, tokenizers and the headers of their weights: before anything is written by
`revela train`, and before any job of the workflow where their folders are there by then. Whatever was fetched since, and
the chunks, are examined as training begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import regex
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerBase

from revela.objectives.tokens import label_pad, read_ids, without_token
from revela.pretrained import check_reading, check_targets, check_weights, load_tokenizer, outline, output_head
from revela.study.source import PathSource
from revela.text.by_tokens import Cut, cut_off, lengths
from revela.training import TrainingError

if TYPE_CHECKING:
    from revela.study.cell import Cell
    from revela.study.settings import Training
    from revela.study.study import Study

SAMPLE = 256  # batches whose tokens are counted, evenly over all


def examine_cell(study: Study, cell: Cell) -> None:
    """Examines a cell's models as far as their folders are there. PretrainedError, ObjectiveError or TrainingError."""
    settings, layout = study.training_settings(cell), study.layout

    def folder(name: str) -> Path | None:
        origin = study.models[name].origin
        places = [layout.model(name), *([origin.path] if isinstance(origin, PathSource) else [])]
        return next((Path(place) for place in places if Path(place).is_dir()), None)

    measured = study.config.evaluation.max_length if study.tasks else None
    examine(settings, folder(cell.retriever), folder(cell.lm) if cell.needs.lm == "beside" else None, measured=measured)


def examine(settings: Training, retriever: Path | None, lm: Path | None, *, measured: int | None = None) -> None:
    """Examines the models of a run, those that are given.

    Args:
        settings: Of the run.
        retriever: The backbone's folder.
        lm: The folder of the language model that is trained or used beside it.
        measured: Tokens of a text at most in the evaluation, where there will be one.

    Raises:
        PretrainedError: Weights are missing, a length is beyond the model's positions, or an adapter's target is no layer.
        ObjectiveError: A token that is needed is missing.
        TrainingError: Model and tokenizer, or prefix and length, do not go together.
    """
    if retriever:
        check_weights(retriever)
        model, tokenizer = outline(AutoModel, retriever), load_tokenizer(retriever)
        _check_decoder(model, retriever)
        check_reading(model, tokenizer, settings.retriever_max_length, "eos", "training.retriever_max_length")
        if measured:
            check_reading(model, tokenizer, measured, "eos", "evaluation.max_length")
        _check_vocabulary(model, tokenizer, retriever)
        _check_prefixes(settings, tokenizer)
        if settings.lora:
            check_targets(model, settings.lora.targets)
    if lm:
        check_weights(lm)
        model, tokenizer = outline(AutoModelForCausalLM, lm), load_tokenizer(lm)
        _check_decoder(model, lm)
        check_reading(model, tokenizer, settings.lm_max_length, "", "training.lm_max_length")
        _check_vocabulary(model, tokenizer, lm)
        label_pad(tokenizer)
        output_head(model)
        if settings.lora and not settings.freeze_lm:
            check_targets(model, settings.lora.targets)


def _check_decoder(model: nn.Module, folder: Path) -> None:
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        raise TrainingError(
            f"{folder}: {type(model).__name__} is an encoder, whose tokens see what comes after them; training needs a "
            "causal language model, such as Llama, Qwen or SmolLM"
        )


def _check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Every token that ordinary text, or the end of a text, can have needs a row of the embedding.

    Others may lack one, as those for images do in models that read text alone.
    """
    rows = model.get_input_embeddings().num_embeddings
    vocabulary = tokenizer.get_vocab()
    needed = vocabulary.keys() - tokenizer.get_added_vocab().keys()
    needed |= {getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad", "cls", "sep")}
    beyond = {token: number for token, number in vocabulary.items() if token in needed and number >= rows}
    if beyond:
        token, number = max(beyond.items(), key=lambda item: item[1])
        raise TrainingError(
            f"{folder}: its tokenizer has ids up to {number} ({token!r}), and its embedding {rows} rows, so that "
            f"{len(beyond)} tokens have none; the tokenizer is that of another model"
        )


def _check_prefixes(settings: Training, tokenizer: PreTrainedTokenizerBase) -> None:
    for name in ("query_prefix", "passage_prefix"):
        prefix = getattr(settings, name)
        [length] = lengths(tokenizer, [prefix], eos=True)
        if length >= settings.retriever_max_length:
            raise TrainingError(
                f"training.retriever_max_length: {settings.retriever_max_length} tokens, and training.{name} {prefix!r} "
                f"and EOS are {length}, so that nothing of a text is read; valid: more than {length}"
            )


# --- chunks


def check_chunks(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, data: Path) -> None:
    """Raises TrainingError, which names the first document, where the language model has no token for a chunk.

    rows: of the training file `data`. Only chunks without a letter or a digit beside special tokens are tokenized.
    """
    if "text" not in rows.column_names:
        return
    texts = pc.list_flatten(rows["text"])
    special = "|".join(regex.escape(token) for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True))
    plain = pc.replace_substring_regex(texts, special, "") if special else texts
    suspects = pc.indices_nonzero(pc.invert(pc.match_substring_regex(plain, r"[\pL\pN]"))).to_pylist()
    if not suspects:
        return
    ids = read_ids(tokenizer, texts.take(suspects).to_pylist())
    bare = [suspects[place] for place in without_token(tokenizer, ids)]
    if bare:
        first = bare[0]
        named = "document" in rows.column_names
        of = pc.list_flatten(rows["document"])[first] if named else f"batch {first // len(rows['text'][0])}"
        raise TrainingError(
            f"{data}: {len(bare)} of {len(texts)} chunks have no token for the language model, the first of {of}: "
            f"{texts[first].as_py()[:60]!r}; take them out of the text, or set chunking.tokenizer to a backbone, which "
            "leaves them out"
        )


def tokens_line(settings: Training, rows: pa.Table, retriever: Path, lm: Path | None) -> str:
    """A line on what the lengths of the settings cut off the chunks of some batches."""
    step = max(1, -(-len(rows) // SAMPLE))
    sample = rows.take(list(range(0, len(rows), step)))
    texts = pc.list_flatten(sample["text" if "text" in rows.column_names else "passages"]).to_pylist()
    read = [settings.passage_prefix + text for text in texts]
    parts = [
        (
            "the retriever",
            "retriever_max_length",
            cut_off(_lengths(retriever, read, eos=True), settings.retriever_max_length),
        )
    ]
    if lm:
        parts.append(
            ("the language model", "lm_max_length", cut_off(_lengths(lm, texts, eos=False), settings.lm_max_length))
        )
    return f"tokens: {' and '.join(_said(*part, settings) for part in parts)}, of {len(texts)} chunks in {len(sample)} batches"


def _lengths(folder: Path, texts: list[str], *, eos: bool) -> Iterable[int]:
    return lengths(load_tokenizer(folder), texts, eos=eos)


def _said(reader: str, key: str, cut: Cut, settings: Training) -> str:
    return f"{reader} loses {100 * cut.share:.1f} % ({key} {getattr(settings, key)})"
