"""Adapters by others, such as the authors' trumancai/Revela-1b: they become retrievers, and exports."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from revela.export.formats import Format, export_as
from revela.provenance import write_manifest
from revela.retriever import Retriever, load_adapter
from revela.study.source import parse_source
from revela.text.resources import fetch_model


def export_released(
    format: Format,
    adapter: str,
    base: str,
    output: str | Path,
    *,
    reading: Mapping[str, str | int] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    scores: Sequence[str | Path] = (),
) -> None:
    """Writes an export of an adapter by others and the model below it.

    Args:
        format, dtype, scores: As in `revela.export.formats`.
        adapter, base: Each a local folder, or owner/name[@revision] on the hub. Only safetensors, tokenizer and
            configuration are fetched.
        output: The folder to write.
        reading: The `query_prefix`, `passage_prefix` and `max_length` (tokens) that the adapter was trained with; those
            of `released_retriever` by default.

    Raises:
        ExportError, RetrieverError, ResourceError: One line on what is wrong.
    """
    with tempfile.TemporaryDirectory() as scratch:
        adapter_folder = local_folder(str(adapter), Path(scratch, "adapter"))
        base_folder = local_folder(str(base), Path(scratch, "base"))
        retriever = Path(scratch, "retriever")
        released_retriever(adapter_folder, base_folder, **(reading or {})).save(retriever)
        write_manifest(retriever, adapter=str(adapter_folder))
        export_as(format, retriever, output, dtype=dtype, scores=scores)


def local_folder(place: str, folder: Path) -> Path:
    """A local folder as it is; a repository of the hub as it is fetched into `folder`."""
    if Path(place).is_dir():
        return Path(place)
    fetch_model(place, parse_source("backbone", f"hub:{place}"), folder)
    return folder


def released_retriever(
    adapter: str | Path,
    base: str | Path,
    *,
    query_prefix: str = "query:  ",
    passage_prefix: str = "passage:  ",
    max_length: int = 2048,
) -> Retriever:
    """A retriever of a bare LoRA adapter and the model below it, such as the authors' trumancai/Revela-1b.

    Args:
        adapter: Folder with `adapter_config.json` and `adapter_model.safetensors`, trained on the model without its
            head or with it.
        base: Hugging Face folder of the model that it was trained on.
        query_prefix, passage_prefix, max_length: By default as the authors evaluate theirs (mteb's RepLLaMA wrapper).

    Raises:
        RetrieverError: It is no adapter in safetensors, or not of this model.
    """
    options = {"query_prefix": query_prefix, "passage_prefix": passage_prefix, "max_length": max_length}
    retriever = Retriever.from_backbone(base, **options)
    retriever.backbone = load_adapter(retriever.backbone, adapter)
    return retriever.eval()
