"""Export: a trained cell in the formats that other software loads, with a model card; and the loader for adapters.

- sentence-transformers: Transformer, last-token pooling, normalisation. The tokenizer's post-processor appends EOS,
  so that it is there after truncation too; prompts `query` and `document` are the prefixes of training.
- peft: the bare adapter, which names the model below it.
- transformers: the backbone with its adapters merged in, as safetensors.

Every export holds `README.md`, a model card for the hub, and is written whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from peft import PeftModel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from revela.errors import RevelaError
from revela.export.card import CITATION, front_matter, hub_name, write_card
from revela.files import atomic_folder
from revela.pretrained import load_tokenizer, quietly
from revela.provenance import write_manifest
from revela.retriever import SETTINGS, Retriever, load_adapter, save_adapter

if TYPE_CHECKING:
    from mteb.models import ModelMeta

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}  # of an embedding's components


class ExportError(RevelaError):
    """A model that cannot be exported, or a place that does not take it. The message is one line."""


def _free(output: str | Path) -> Path:
    """The place, where nothing stands, or an empty folder, or an earlier export; ExportError otherwise."""
    output = Path(output)
    if output.exists() and not _is_export(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ExportError(f"{output}: is there already, and no export that could be replaced; name a new folder")
    return output


def _is_export(folder: Path) -> bool:
    return "revela" in (front_matter(folder / "README.md").get("tags") or ())


def read_scores(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """What score files say, each with `benchmark` and `tasks` (label and metrics by name).

    Raises ExportError for a file that is none, before anything is exported.
    """
    results = []
    for path in paths:
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if "metrics" in found:  # of `revela evaluate`, a benchmark of one task
                found = {**found, "tasks": {found["benchmark"]: {"label": found["benchmark"], **found}}}
            if not all(task["label"] and task["metrics"]["nDCG@10"] >= 0 for task in found["tasks"].values()):
                raise ValueError
            if "protocol" in found and not {"query_prefix", "passage_prefix", "max_length"} <= found["protocol"].keys():
                raise ValueError
        except OSError as error:
            raise ExportError(f"--scores {path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ExportError(
                f"--scores {path}: no scores; valid: a file of results/scores, or what `revela evaluate --json` prints"
            ) from None
        results.append(found)
    return results


# --- what is exported


def export_sentence_transformer(
    model: str | Path,
    output: str | Path,
    *,
    scores: Sequence[str | Path] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Writes a folder that `sentence_transformers.SentenceTransformer` loads, and `Retriever.load` as well.

    Before the folder appears it is loaded and compared with the retriever, on a short text and on one that is cut.

    Args:
        model: A trained cell, or the folder of a retriever.
        output: The folder to write; an earlier export is replaced.
        scores: Score files for the model card: those of the workflow (`results/scores/...json`), or what
            `revela evaluate --json` prints.
        dtype: Of the weights. In bfloat16, half the size, embeddings differ from the retriever's by rounding.

    Raises:
        ExportError: The retriever does not pool at EOS, the export is not what it should be, or something else has its
            name.
        RetrieverError: The folder is none of a retriever.
    """
    results = read_scores(scores)
    output, retriever = _free(output), load_retriever(model)
    expected = _probe(retriever)
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
    """Writes the bare PEFT adapter. It names the hub's model below it if it came from there, else its folder.

    Raises ExportError for a retriever of which all weights were trained.
    """
    results = read_scores(scores)
    output, retriever = _free(output), load_retriever(model)
    if not isinstance(retriever.backbone, PeftModel):
        raise ExportError(f"{model}: has no adapter, as all of its weights were trained; export it as another format")
    with atomic_folder(output) as partial:
        name, _ = hub_name(retriever.base)
        save_adapter(retriever.backbone, partial, name or str(retriever.base.resolve()))
        write_card(partial, model, retriever, results, "peft")


def export_as(
    format: Literal["sentence-transformers", "merged", "adapter"],
    model: str | Path,
    output: str | Path,
    *,
    base: str | Path | None = None,
    reading: Mapping[str, str | int] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    scores: Sequence[str | Path] = (),
) -> None:
    """Writes an export in the format of that name.

    With `base`, `model` is an adapter by others, such as trumancai/Revela-1b, and `base` the model below it: each a
    local folder or owner/name[@revision] on the hub, from which only safetensors and JSON are taken. `reading` may then
    hold the `query_prefix`, `passage_prefix` and `max_length` (tokens) that it was trained with; the defaults are those
    of `released_retriever`.

    Raises:
        ExportError, RetrieverError, ResourceError: One line on what is wrong.
    """
    if reading and base is None:
        option = "--" + next(iter(reading)).replace("_", "-")
        raise ExportError(f"{option}: {model} keeps what it was trained with; valid beside --base alone")
    if format == "adapter" and dtype != "float32":
        raise ExportError(f"--dtype {dtype}: an adapter is float32, as it was trained; leave the option out")
    with tempfile.TemporaryDirectory() as scratch:
        if base is not None:
            adapter = _fetched(str(model), Path(scratch, "adapter"))
            model = Path(scratch, "retriever")
            released_retriever(adapter, _fetched(str(base), Path(scratch, "base")), **(reading or {})).save(model)
            write_manifest(model, adapter=str(adapter))
        if format == "sentence-transformers":
            export_sentence_transformer(model, output, scores=scores, dtype=dtype)
        elif format == "merged":
            export_merged(model, output, scores=scores, dtype=dtype)
        else:
            export_adapter(model, output, scores=scores)


def _fetched(place: str, folder: Path) -> Path:
    """A local folder as it is, or a snapshot of the hub's in `folder`."""
    from revela.study.study import Model
    from revela.text.resources import fetch_model

    if Path(place).is_dir():
        return Path(place)
    fetch_model(Model(scale="own", name="fetched", kind="backbone", source=f"hub:{place}"), folder)
    return folder


def load_retriever(model: str | Path) -> Retriever:
    """The retriever of a trained cell, or of a retriever's own folder, in float32 on the CPU.

    Raises ExportError if it does not pool at EOS.
    """
    folder = Path(model).resolve()
    if _is_export(folder):
        cell = Path(*("models" if part == "exports" else part for part in folder.parts))
        raise ExportError(
            f"{model}: is an export, which knows nothing of its training; name the trained cell"
            + (f", {os.path.relpath(cell)}" if cell != folder and cell.is_dir() else "")
        )
    retriever = Retriever.load(model, device="cpu", dtype=torch.float32)
    if retriever.pooling != "eos":
        raise ExportError(f"{model}: pools by {retriever.pooling}; exported are retrievers that pool at EOS")
    return retriever


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


# --- folders of others


def _write_merged(retriever: Retriever, folder: Path, dtype: torch.dtype) -> None:
    """The backbone and its tokenizer; adapters are merged, and leave the retriever."""
    if isinstance(retriever.backbone, PeftModel):
        retriever.backbone = retriever.backbone.merge_and_unload()
    with quietly():
        retriever.backbone.to(dtype).save_pretrained(folder)
    load_tokenizer(retriever.tokenizer.name_or_path).save_pretrained(folder)


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
    (folder / SETTINGS).write_text(json.dumps(retriever.settings, indent=1) + "\n", encoding="utf-8")


def append_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes the tokenizer itself end every text in EOS; what it puts in front stays."""
    eos, special = tokenizer.eos_token_id, tokenizer("")["input_ids"]
    if special and special[-1] == eos and special != [tokenizer.bos_token_id]:
        return
    tokens = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.convert_ids_to_tokens(special)}
    template = " ".join([*tokens, "$A", tokenizer.eos_token])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[*tokens.items(), (tokenizer.eos_token, eos)]
    )


def _probe(retriever: Retriever) -> np.ndarray:
    """Embeddings [6, d] of three texts of both kinds; ExportError if the adapters change none of them."""
    texts = _probes(retriever.max_length)
    embeddings = np.concatenate([retriever.encode(texts, kind="query"), retriever.encode(texts, kind="passage")])
    if isinstance(retriever.backbone, PeftModel):
        with retriever.backbone.disable_adapter():
            before = retriever.encode(texts, kind="query")
        if np.array_equal(before, embeddings[: len(texts)]):
            raise ExportError("the adapter changes nothing, so the export would be the untrained model")
    return embeddings


def _probes(max_length: int) -> list[str]:
    return ["short", "def f(x):\n    return x", " ".join(["retrieval of passages"] * max_length)]  # the last is cut


def _check(folder: Path, expected: np.ndarray, tolerance: float) -> None:
    """The export gives the retriever's embeddings."""
    from sentence_transformers import SentenceTransformer

    with quietly():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = _probes(model.max_seq_length)
    found = np.concatenate([model.encode_query(texts), model.encode_document(texts)]).astype(np.float32)
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise ExportError(f"the export differs from the retriever by {difference:.2g} in an embedding")


# --- others' registries


def model_meta(folder: str | Path, name: str) -> ModelMeta:
    """mteb's description of an exported model, with which mteb evaluates it: `mteb.evaluate(meta.load_model(), tasks)`.

    Args:
        folder: An export for sentence-transformers.
        name: owner/name on the hub, or the path of the folder, from which mteb loads the model.

    Raises:
        ExportError: The folder is no such export.
    """
    from mteb.models import ModelMeta
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from safetensors import safe_open

    folder = Path(folder)
    if not (folder / "modules.json").is_file() or not (folder / SETTINGS).is_file():
        raise ExportError(f"{folder}: is no export for sentence-transformers; write one with `revela export`")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    head = front_matter(folder / "README.md")
    files = sorted(folder.glob("*.safetensors"))
    parameters = 0
    for path in files:
        with safe_open(path, "np") as weights:
            parameters += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return ModelMeta(
        loader=SentenceTransformerEncoderWrapper,
        name=name,
        revision=None,
        release_date=None,
        languages=None,
        n_parameters=parameters,
        memory_usage_mb=round(sum(path.stat().st_size for path in files) / 2**20),
        max_tokens=settings["max_length"],
        embed_dim=config["hidden_size"],
        license=_licence_for_mteb(head.get("license")),
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch", "safetensors"],
        similarity_fn_name="cosine",
        use_instructions=True,
        training_datasets=None,
        adapted_from=head.get("base_model"),
        citation=CITATION,
    )


def _licence_for_mteb(licence: Any) -> str | None:
    """A licence by the name that mteb has for it; "not specified" for others, which stand in the model card."""
    from mteb.types import Licenses

    known = {name for one in (Licenses, *get_args(Licenses)) for name in get_args(one)}
    return licence if licence is None or (isinstance(licence, str) and licence in known) else "not specified"


def push(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Uploads an export to the Hugging Face hub and returns its address. Nothing else in the project uploads anything.

    The token is the hub client's own affair: HF_TOKEN, or `hf auth login`.

    Raises:
        ExportError: The folder is no export, there is no token, or the hub refuses it.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, HTTPError

    folder = Path(folder)
    if not (folder / "README.md").is_file() or not any(folder.glob("*.safetensors")):
        raise ExportError(f"{folder}: is no export (no README.md and weights); write one with `revela export`")
    if not get_token():
        raise ExportError("no token of the hub; set HF_TOKEN or run `hf auth login`")
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Upload of a Revela retriever")
    except HFValidationError:
        raise ExportError(f"{repository!r} is not a name on the hub; valid: owner/name") from None
    except (HTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{repository}: the hub did not take it ({reason})") from None
    return str(address)
