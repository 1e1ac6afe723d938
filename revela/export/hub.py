"""Exports and the registries of others: the Hugging Face hub, and mteb's models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from revela.errors import first_line
from revela.export import ExportError
from revela.export.card import CITATION, front_matter
from revela.retriever import SETTINGS

if TYPE_CHECKING:
    from mteb.models import ModelMeta


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
        reason = first_line(error)
        raise ExportError(f"{repository}: the hub did not take it ({reason})") from None
    return str(address)
