"""The retriever: a decoder without its head that turns a text into one vector.

A text is prefix + text + EOS; its embedding is the last hidden state at EOS, L2-normalised (section 3.3). Any stock
Hugging Face model with a `last_hidden_state` will do as the backbone; mean and first-token pooling serve encoders.

    retriever = Retriever.load("results/models/revela/code/llama-3.2-1b/llama-3.2-1b/bs16/retriever")
    scores = retriever.encode(["how to sort a list"], kind="query") @ retriever.encode(documents, kind="passage").T
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from revela.files import atomic_folder, write_json
from revela.method.packing import Packing, can_pack, run
from revela.method.pooling import POOLINGS
from revela.pretrained import PretrainedError, check_reading, check_targets, load_model, load_tokenizer, quietly
from revela.provenance import folder_sha256

if TYPE_CHECKING:  # peft takes half a second to import, and only adapters need it
    from peft import PeftModel

    from revela.study.settings import Lora
    from revela.study.system import Pooling

SETTINGS = "retriever.json"
NAMES = ("query_prefix", "passage_prefix", "max_length", "pooling", "normalize")  # what stands in it
Kind = Literal["query", "passage"]


class RetrieverError(PretrainedError):
    """A retriever that cannot be built, loaded or trusted. The message is one line."""


class Prepared(NamedTuple):
    """Texts as `Retriever.prepare` hands them to `Retriever.embed`."""

    texts: Sequence[str]
    kind: Kind
    distinct: list[np.ndarray]  # ids of each different sequence
    rows: list[int]  # the place in `distinct` of each text


class Retriever(nn.Module):
    """A backbone with its tokenizer and the rules that make an embedding of a text.

    backbone: model without a head, PEFT-wrapped where it carries adapters.
    query_prefix, passage_prefix: put before a text of either kind.
    max_length: tokens of prefix + text + EOS at most; longer texts are cut, and still end in EOS.
    pooling: "eos", "mean" (over all tokens) or "cls" (the first token). EOS is appended for "eos" only; all other
        special tokens, BOS among them, are the tokenizer's own.
    normalize: scale embeddings to unit length.
    base: folder of the backbone's weights, which a saved adapter refers to.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        max_length: int,
        pooling: Pooling = "eos",
        normalize: bool = True,
        base: str | Path | None = None,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise RetrieverError(f"pooling {pooling!r} is unknown; valid are {', '.join(POOLINGS)}")
        try:
            check_reading(backbone, tokenizer, max_length, pooling, "max_length")
        except PretrainedError as error:
            raise RetrieverError(str(error)) from None
        tokenizer.truncation_side = "right"
        self.backbone, self.tokenizer = backbone, tokenizer
        self.query_prefix, self.passage_prefix, self.max_length = query_prefix, passage_prefix, max_length
        self.pooling, self.normalize = pooling, normalize
        self.base = Path(base) if base is not None else None

    # --- text -> tokens -> vectors

    def tokenize(self, texts: Sequence[str], kind: Kind, *, first_half: bool = False) -> dict[str, Tensor]:
        """Texts as `input_ids` and `attention_mask` [n, L], padded on the right to the longest of them.

        With `first_half` only the first int(0.5 * n) of a text's n ids are kept, prefix and BOS included, and EOS is
        put after them (Appendix B.5).
        """
        return self._pad(self._ids(texts, kind, first_half))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *, packed: bool = False) -> Tensor:
        """Embeddings [n, d], float32 or better, of input_ids and attention_mask [n, L], padded on the right.

        packed: compute no pad (`revela.method.packing`), which is faster where lengths differ; for causal decoders.
        """
        if packed:
            packing = Packing(attention_mask)
            hidden = packing.pad(run(self.backbone.get_decoder(), packing.lay_out(input_ids), packing))
        else:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = POOLINGS[self.pooling](hidden, attention_mask)
        pooled = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def merge(self) -> Retriever:
        """Adds the adapters to the weights for good, to encode faster: the same embeddings to round-off."""
        if hasattr(self.backbone, "merge_and_unload"):
            self.backbone = self.backbone.merge_and_unload()
        return self

    def encode(self, texts: Sequence[str], kind: Kind = "query", *, batch_tokens: int | None = None) -> np.ndarray:
        """Embeddings of texts, float32 [n, d], in their order.

        Texts are encoded in order of length, at most `batch_tokens` tokens with padding at a time (one text at least).
        The default is 16,384 on a GPU, and 4,096 on a CPU, whose caches hold less. Texts of the same tokens are encoded
        once, so that their rows are equal to the last bit and tie in a ranking. Raises RetrieverError for an embedding
        that is not finite, and for a bare string in the place of texts.
        """
        return self.embed(self.prepare(texts, kind), batch_tokens=batch_tokens)

    def prepare(self, texts: Sequence[str], kind: Kind) -> Prepared:
        """The first half of `encode`, which needs no model: it may run in a thread beside `embed`."""
        row_of = {}  # the bytes of a text's ids -> its row among the distinct ones
        rows = [
            row_of.setdefault(np.asarray(ids, np.int32).tobytes(), len(row_of)) for ids in self._stream(texts, kind)
        ]
        return Prepared(texts, kind, [np.frombuffer(ids, np.int32) for ids in row_of], rows)

    @torch.no_grad()
    def embed(self, prepared: Prepared, *, batch_tokens: int | None = None) -> np.ndarray:
        """The second half of `encode`: embeddings, float32 [n, d]. Raises RetrieverError if one is not finite.

        No pad is computed where a decoder's weights are of 16 bits. In float32 pads stay, as numbers are reproduced in it
        to the last bit.
        """
        texts, kind, distinct, rows = prepared
        embeddings = np.empty((len(distinct), self.backbone.config.hidden_size), np.float32)
        device, training = next(self.backbone.parameters()).device, self.training
        packed = self.backbone.dtype != torch.float32 and can_pack(self.backbone)
        self.eval()
        batch_tokens = batch_tokens or (4096 if device.type == "cpu" else 16384)
        order, parts = [], []
        for batch in _by_length([len(ids) for ids in distinct], batch_tokens):
            tokens = self._pad([distinct[index] for index in batch])
            tokens = {name: ids.to(device, non_blocking=True) for name, ids in tokens.items()}
            parts.append(self(**tokens, packed=packed).float())
            order += batch
        if parts:  # copied at once, so that a GPU is never waited for between batches
            embeddings[order] = torch.cat(parts).cpu().numpy()
        self.train(training)
        for row in np.flatnonzero(~np.isfinite(embeddings).all(axis=1)):
            position = rows.index(row)
            raise RetrieverError(f"the embedding of {kind} {position} is not finite: {texts[position][:80]!r}")
        return embeddings[rows]

    def _stream(self, texts: Sequence[str], kind: Kind, chunk: int = 1024) -> Iterator[list[int]]:
        for start in range(0, len(texts), chunk):
            yield from self._ids(texts[start : start + chunk], kind)

    def _ids(self, texts: Sequence[str], kind: Kind, first_half: bool = False) -> list[list[int]]:
        """The ids of each text: prefix + text, cut, then EOS (for EOS pooling)."""
        if kind not in ("query", "passage"):
            raise RetrieverError(f"kind {kind!r} is unknown; valid are query, passage")
        if isinstance(texts, str):  # of which each character would be a text
            raise RetrieverError(f"one text where a list of texts is expected; write [{texts[:60]!r}]")
        prefix = self.query_prefix if kind == "query" else self.passage_prefix
        texts = [prefix + text for text in texts]
        cut = {"truncation": True, "max_length": self.max_length, "return_attention_mask": False}
        ids = self.tokenizer(texts, **cut)["input_ids"]
        if self.pooling == "eos":
            eos = self.tokenizer.eos_token_id
            ids = [row[:-1] if row and row[-1] == eos else row for row in ids]  # some tokenizers append it themselves
            ids = [row[: self.max_length - 1] for row in ids]
        if first_half:
            ids = [row[: int(0.5 * len(row))] for row in ids]
        return [[*row, eos] for row in ids] if self.pooling == "eos" else ids

    def _pad(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Rows of ids, padded on the right; a tokenizer without a pad token pads with EOS."""
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        ids = torch.full_like(mask, pad or 0)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.as_tensor(np.array(row))
        return {"input_ids": ids, "attention_mask": mask}

    # --- folders

    @property
    def settings(self) -> dict[str, Any]:
        """What `retriever.json` says about how texts become embeddings."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def from_backbone(
        cls,
        folder: str | Path,
        *,
        query_prefix: str = "",
        passage_prefix: str = "",
        max_length: int,
        pooling: Pooling = "eos",
        normalize: bool = True,
        lora: Lora | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Retriever:
        """A retriever on the weights of a Hugging Face folder, read as `dtype`, with fresh adapters if `lora` is given.

        The adapters are float32 and drawn from torch's global generator. Without `lora` all weights are trainable.
        Raises RetrieverError if the folder holds no model, lacks weights, or has no EOS to pool at.
        """
        backbone = _load_backbone(folder, dtype)
        return cls(
            add_lora(backbone, lora, "FEATURE_EXTRACTION") if lora else backbone,
            load_tokenizer(folder),
            query_prefix=query_prefix,
            passage_prefix=passage_prefix,
            max_length=max_length,
            pooling=pooling,
            normalize=normalize,
            base=folder,
        )

    def save(self, folder: str | Path) -> None:
        """Writes the retriever to a folder, whole or not at all, weights as safetensors.

        Adapters refer to the folder of the backbone: by a relative path if both lie below the working directory, so
        that the tree can be moved, and by an absolute one otherwise. A retriever without adapters is written as a whole
        model with its tokenizer.
        """
        from peft import PeftModel

        settings = self.settings
        with atomic_folder(folder) as partial:
            if isinstance(self.backbone, PeftModel):
                settings["base"] = reference(self.base, Path(folder))
                settings["base_sha256"] = folder_sha256(self.base)
                save_adapter(self.backbone, partial, settings["base"])
            else:
                with quietly():
                    self.backbone.save_pretrained(partial)
                # A fresh copy, as this one would write down the truncation of its last call.
                load_tokenizer(self.tokenizer.name_or_path).save_pretrained(partial)
            write_json(partial / SETTINGS, settings)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        max_length: int | None = None,
    ) -> Retriever:
        """A retriever that `save` wrote, or that of a trained cell. Prefixes and length are as saved unless given.

        device: a GPU if there is one, by default. dtype: bfloat16 on a GPU, float32 elsewhere, by default.
        Raises RetrieverError if the folder holds no retriever, or if an adapter's backbone is missing or has changed.
        """
        folder = retriever_folder(folder)
        settings = _read_settings(folder)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        base, base_sha256 = settings.pop("base", None), settings.pop("base_sha256", None)
        base = _resolve(base, base_sha256, folder) if base else folder
        backbone = _load_backbone(base, dtype)
        if base != folder:
            backbone = load_adapter(backbone, folder)
        given = {"query_prefix": query_prefix, "passage_prefix": passage_prefix, "max_length": max_length}
        settings |= {name: value for name, value in given.items() if value is not None}
        tokenizer = load_tokenizer(base)
        return cls(backbone, tokenizer, base=base, **settings).to(device).eval()


def retriever_folder(model: str | Path) -> Path:
    """Where the retriever of a trained cell is, or the folder itself where it is no cell's."""
    inner = Path(model, "retriever")
    return inner if (inner / SETTINGS).is_file() else Path(model)


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.keys() - {"base", "base_sha256"} != set(NAMES):
            raise ValueError(f"it has {', '.join(settings)}; expected are {', '.join(NAMES)}")
    except (FileNotFoundError, NotADirectoryError):
        what = "a language model" if (folder / "config.json").is_file() else f"no {SETTINGS} here"
        what = f"{what}, so this is not a saved retriever" if folder.is_dir() else "no such folder"
        raise RetrieverError(f"{folder}: {what}") from None
    except (ValueError, AttributeError) as error:
        raise RetrieverError(f"{path}: cannot be read ({error})") from None
    return settings


def load_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """A model, with its head or without, wrapped in the adapters of a PEFT folder.

    PEFT skips weights whose names it does not find in the model, which then works as it did before training. Here every
    weight of the folder must find its place, and every adapter its weight. The adapters of a causal language model fit
    its backbone as well.

    Raises RetrieverError if the folder holds no adapter in safetensors (pickles are not loaded), or one of another model.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not Path(folder, name).is_file():
            raise RetrieverError(f"{folder}: no {name}, so this is not the folder of an adapter")
    try:
        weights = load_peft_weights(str(folder), device="cpu")
    except SafetensorError as error:
        raise RetrieverError(f"{folder}: weights that cannot be read ({error}); copy the folder again") from None
    if model.base_model is model:  # it has no head, so its layers stand one level higher than where there is one
        prefix = f"base_model.model.{model.base_model_prefix}."
        weights = {name.replace(prefix, "base_model.model.", 1): weight for name, weight in weights.items()}
    try:
        with quietly():
            model = PeftModel(model, PeftConfig.from_pretrained(str(folder)))
        found = set_peft_model_state_dict(model, weights)
    except (RuntimeError, ValueError) as error:  # no such layers, or of other shapes
        reason = str(error).strip().splitlines()[-1].strip()
        raise RetrieverError(f"{folder}: the adapter is not of its base ({reason})") from None
    odd = [*found.unexpected_keys, *(name for name in found.missing_keys if "lora_" in name)]
    if odd:
        raise RetrieverError(f"{folder}: {len(odd)} weights of the adapter and of its base do not match: {odd[0]}")
    return model


def add_lora(model: PreTrainedModel, lora: Lora, task_type: str) -> PeftModel:
    """The model with fresh float32 adapters, everything else frozen. PretrainedError for a target that it lacks."""
    from peft import LoraConfig, get_peft_model

    check_targets(model, lora.targets)
    scale = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    with quietly():
        return get_peft_model(model, LoraConfig(**scale, target_modules=list(lora.targets), task_type=task_type))


def save_adapter(model: PeftModel, folder: Path, base: str) -> None:
    """Writes the adapters of a model, the same bytes each time, with `base` as the name of the model below them."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _load_backbone(folder: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    try:
        backbone = load_model(AutoModel, folder, dtype)
    except PretrainedError as error:
        raise RetrieverError(str(error)) from None
    backbone.config.use_cache = False
    return backbone


def _by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions in batches, longest first, so that rows x longest <= batch_tokens, or a single row."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def reference(base: Path, folder: Path) -> str:
    """How `folder` names `base`: relative if both are below the working directory, else absolute."""
    base, folder, here = base.resolve(), folder.resolve(), Path.cwd()
    together = base.is_relative_to(here) and folder.is_relative_to(here)
    return os.path.relpath(base, folder) if together else str(base)


def _resolve(reference: str, sha256: str, folder: Path) -> Path:
    """The folder of the backbone that an adapter in `folder` belongs to."""
    base = Path(os.path.normpath(folder.resolve() / reference))
    if not base.is_dir():
        raise RetrieverError(f"{folder / SETTINGS}: base {reference!r} leads to {base}, where there is no folder")
    if folder_sha256(base) != sha256:
        raise RetrieverError(f"{folder}: its adapter was trained on another model than is in {base} now")
    return base
