"""The Hugging Face hub: what is taken of a model's repository, which commit, and why a repository cannot be had."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from revela.errors import first_line

# Weights as safetensors, tokenizer and configuration. The code of a checkpoint is left behind; pickles, too, unless
# there is nothing else.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "README.md"]
NOT_MODEL_FILES = ["onnx/*", "openvino/*", "original/*"]  # the same weights for other runtimes


def page(kind: str, name: str) -> str:
    """The page of a model or a dataset."""
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"


def commits_file(folder: Path) -> Path:
    """The record of the commits that a resource's folder was made of."""
    return folder.with_name(f"{folder.name}.commits.json")


def pinned(folder: Path, name: str, revision: str) -> str | None:
    """The commit that a resource's folder was made of before, of this repository at this revision."""
    record = commits_file(folder)
    return json.loads(record.read_text(encoding="utf-8")).get(f"{name}@{revision}") if record.is_file() else None


def refusal(kind: str, name: str, revision: str, error: Exception) -> str:
    """Why a repository cannot be had, and what to do, in one line. `error`: of huggingface_hub, or of the network."""
    where = page(kind, name)
    match error:
        case GatedRepoError() if huggingface_hub.get_token():
            return (
                f"{kind} {name} is gated: accept its licence at {where}, then set HF_TOKEN to a token of that account, or run "
                "`hf auth login`; the token that is set now is wrong, or of another account"
            )
        case GatedRepoError():
            return f"{kind} {name} is gated: accept its licence at {where}, then set HF_TOKEN or run `hf auth login`"
        case RepositoryNotFoundError():
            return f"{kind} {name}: not on the hub, or private; see {where}, and HF_TOKEN for a private one"
        case RevisionNotFoundError():
            return f"{kind} {name} has no revision {revision!r}; see {where}/tree/main"
        case LocalEntryNotFoundError() if isinstance(
            error.__cause__, HfHubHTTPError
        ):  # too many requests, or it is down
            return (
                f"{kind} {name}: the hub refuses it for now ({first_line(error.__cause__)}); run again in a few minutes"
            )
        case LocalEntryNotFoundError():
            return (
                f"{kind} {name} is not in the hub's cache and the hub cannot be reached (no network, or HF_HUB_OFFLINE "
                f"is set); fetch it where there is a network, or use a local copy by `path`; its page: {where}"
            )
        case HFValidationError():
            return f"{name!r} is not the name of a {kind} on the hub; valid: owner/name"
        case OSError(errno=errno.EROFS | errno.EACCES | errno.ENOSPC):
            return (
                f"{kind} {name}: the hub's cache cannot be written ({error.strerror}: {error.filename or 'HF_HOME'}); set "
                "HF_HOME to a folder that can be, with room"
            )
    return f"{kind} {name}: download failed ({first_line(error)}); run again to resume it"
