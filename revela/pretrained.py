"""Models and tokenizers of others: local folders, weights as safetensors alone, and none of the code they bring along.

Nothing else in the project calls `from_pretrained` of transformers' Auto classes: left to its default, it asks on the
terminal whether the code of a checkpoint may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

SAFE = {"trust_remote_code": False, "local_files_only": True}
SAFE_MODEL = {**SAFE, "use_safetensors": True}


class PretrainedError(ValueError):
    """A model or a tokenizer that only its own code could load. The message is one line."""


def load_model(kind: Any, folder: str | Path, **options: Any) -> Any:
    """What `kind.from_pretrained` gives for a folder, for example of AutoModel; PretrainedError if it needs own code."""
    with _own_code_refused(folder):
        return kind.from_pretrained(folder, **SAFE_MODEL, **options)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; PretrainedError if it needs own code."""
    with _own_code_refused(folder):
        return AutoTokenizer.from_pretrained(folder, **SAFE)


@contextmanager
def _own_code_refused(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise PretrainedError(
            f"{folder}: needs code that it brings along, which is not run; name a model that transformers has itself"
        ) from None
