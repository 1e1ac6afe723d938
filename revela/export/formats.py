"""A trained cell in the formats that other software loads, with a model card.

- sentence-transformers: Transformer, last-token pooling, normalisation. The tokenizer's post-processor appends EOS, so
  a text has it after truncation, too. The prompts `query` and `document` are the prefixes of training.
- peft: the bare adapter, which names the model below it.
- transformers: the backbone with its adapters merged in, as safetensors.

Every export holds `README.md`, a model card for the hub, and is written whole or not at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from peft import PeftModel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from revela.export import ExportError
from revela.export.card import front_matter, hub_name, read_scores, write_card
from revela.export.readers import describe_model, describe_modules
from revela.files import atomic_folder, write_json
from revela.pretrained import load_tokenizer, quietly
from revela.retriever import SETTINGS, Retriever, save_adapter
from revela.study.layout import locate_cell

Format = Literal["sentence-transformers", "merged", "adapter"]
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}  # of an embedding's components


def export_as(
    format: Format,
    model: str | Path,
    output: str | Path,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    scores: Sequence[str | Path] = (),
) -> None:
    """Writes an export in the format of that name, by one of the functions below. `dtype` is not for adapters.

    Raises ExportError or RetrieverError with one line on what is wrong.
    """
    if format == "sentence-transformers":
        export_sentence_transformer(model, output, scores=scores, dtype=dtype)
    elif format == "merged":
        export_merged(model, output, scores=scores, dtype=dtype)
    else:
        export_adapter(model, output, scores=scores)


def export_sentence_transformer(
    model: str | Path,
    output: str | Path,
    *,
    scores: Sequence[str | Path] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Writes a folder that `sentence_transformers.SentenceTransformer` loads, and `Retriever.load` as well.

    Before the folder appears, it is loaded and compared with the retriever on short texts and on one that is cut.

    Args:
        model: A trained cell, or the folder of a retriever.
        output: The folder to write; an earlier export is replaced.
        scores: Score files for the model card: the workflow's, or what `revela evaluate --json` prints.
        dtype: Number type of the weights. bfloat16 halves their size; embeddings then differ by rounding.

    Raises:
        ExportError: The retriever does not pool at EOS, the export differs from it, or something else has its name.
        RetrieverError: The folder holds no retriever.
    """
    results = read_scores(scores)
    output, retriever = _free(output), load_retriever(model)
    expected = _embedded(retriever)
    with atomic_folder(output) as partial:
        _write_sentence_transformer(retriever, partial, getattr(torch, dtype))
        _check(partial, expected, TOLERANCE[dtype])
        write_card(partial, model, retriever, results, "sentence-transformers")


def export_merged(
    model: str | Path,
    output: str | Path,
    *,
    scores: Sequence[str | Path] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Writes the backbone as a Hugging Face folder of safetensors, with the adapters merged into its weights.

    Raises ExportError as `export_sentence_transformer` does.
    """
    results = read_scores(scores)
    output, retriever = _free(output), load_retriever(model)
    with atomic_folder(output) as partial:
        _write_merged(retriever, partial, getattr(torch, dtype))
        write_card(partial, model, retriever, results, "transformers")


def export_adapter(model: str | Path, output: str | Path, *, scores: Sequence[str | Path] = ()) -> None:
    """Writes the bare PEFT adapter. It names the model below it: as the hub does if it came from there, or by its folder.

    Raises ExportError for a retriever whose weights were all trained.
    """
    results = read_scores(scores)
    output, retriever = _free(output), load_retriever(model)
    if not isinstance(retriever.backbone, PeftModel):
        raise ExportError(f"{model}: has no adapter, as all of its weights were trained; export it as another format")
    with atomic_folder(output) as partial:
        name, _ = hub_name(retriever.base)
        save_adapter(retriever.backbone, partial, name or str(retriever.base.resolve()))
        write_card(partial, model, retriever, results, "peft")


# --- what is read, and what is written over


def load_retriever(model: str | Path) -> Retriever:
    """The retriever of a trained cell, or the one in a folder of its own, in float32 on the CPU.

    Raises ExportError if it does not pool at EOS, or its adapters change nothing.
    """
    folder = Path(model).resolve()
    if _is_export(folder):
        layout, cell = locate_cell(folder) or (None, None)
        trained = Path(layout.cell(cell)) if layout else folder
        raise ExportError(
            f"{model}: is an export, which knows nothing of its training; name the trained cell"
            + (f", {os.path.relpath(trained)}" if trained != folder and trained.is_dir() else "")
        )
    retriever = Retriever.load(model, device="cpu", dtype=torch.float32)
    if retriever.pooling != "eos":
        raise ExportError(f"{model}: pools by {retriever.pooling}; only retrievers that pool at EOS can be exported")
    if isinstance(retriever.backbone, PeftModel):
        with retriever.backbone.disable_adapter():
            before = _embedded(retriever)
        if np.array_equal(before, _embedded(retriever)):
            raise ExportError(f"{model}: the adapter changes nothing, so the export would be the untrained model")
    return retriever


def _free(output: str | Path) -> Path:
    """The place, if nothing is there but an empty folder or an earlier export; ExportError otherwise."""
    output = Path(output)
    if output.exists() and not _is_export(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ExportError(f"{output}: is there already, and no export that could be replaced; name a new folder")
    return output


def _is_export(folder: Path) -> bool:
    return "revela" in (front_matter(folder / "README.md").get("tags") or ())


# --- folders in the formats of other software


def _write_merged(retriever: Retriever, folder: Path, dtype: torch.dtype) -> None:
    """Writes the backbone and its tokenizer. Adapters are merged into the weights, in the retriever as well."""
    with quietly():
        retriever.merge().backbone.to(dtype).save_pretrained(folder)
    load_tokenizer(retriever.tokenizer.name_or_path).save_pretrained(folder)
    describe_model(folder)


def _write_sentence_transformer(retriever: Retriever, folder: Path, dtype: torch.dtype) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _write_merged(retriever, Path(scratch), dtype)
        tokenizer = load_tokenizer(scratch)
        append_eos(tokenizer)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(scratch)
        with quietly():
            transformer = Transformer(
                scratch,
                max_seq_length=retriever.max_length,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
            pooling = Pooling(retriever.backbone.config.hidden_size, "lasttoken")
            modules = [transformer, pooling, *([Normalize()] if retriever.normalize else [])]
            prompts = {"query": retriever.query_prefix, "document": retriever.passage_prefix}
            model = SentenceTransformer(modules=modules, prompts=prompts, similarity_fn_name="cosine", device="cpu")
            model.save_pretrained(str(folder), create_model_card=False)
    describe_model(folder)
    describe_modules(folder, retriever.max_length, retriever.backbone.config.hidden_size)
    write_json(folder / SETTINGS, retriever.settings)


def append_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes the tokenizer end every text in EOS; what it puts in front stays."""
    eos, special = tokenizer.eos_token_id, tokenizer("")["input_ids"]
    if special and special[-1] == eos and special != [tokenizer.bos_token_id]:
        return
    tokens = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.convert_ids_to_tokens(special)}
    template = " ".join([*tokens, "$A", tokenizer.eos_token])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[*tokens.items(), (tokenizer.eos_token, eos)]
    )


def _embedded(retriever: Retriever) -> np.ndarray:
    """Embeddings [6, d] of three texts of both kinds."""
    texts = _probes(retriever.max_length)
    return np.concatenate([retriever.encode(texts, kind="query"), retriever.encode(texts, kind="passage")])


def _probes(max_length: int) -> list[str]:
    return ["short", "def f(x):\n    return x", " ".join(["retrieval of passages"] * max_length)]  # the last is cut


def _check(folder: Path, expected: np.ndarray, tolerance: float) -> None:
    """Raises ExportError unless the export gives the retriever's embeddings."""
    from sentence_transformers import SentenceTransformer

    with quietly():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = _probes(model.max_seq_length)
    found = np.concatenate([model.encode_query(texts), model.encode_document(texts)]).astype(np.float32)
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise ExportError(f"the export differs from the retriever by {difference:.2g} in an embedding")
