"""The description of an export in the form that all of its readers know.

sentence-transformers 5.4 and transformers 5 began to write shorter descriptions, and read both forms. What reads the
long form alone takes the short one for something else (transformers 4 another rotary base, older vLLM another pooling),
or refuses it (text-embeddings-inference, older sentence-transformers).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revela.files import write_json

MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def describe_model(folder: Path) -> None:
    """Rewrites the configuration of a model and its tokenizer in the folder as transformers 4 reads it, and 5 too."""
    _edit(folder / "config.json", _with_rotary_base)
    _edit(folder / "tokenizer_config.json", _of_known_class)


def describe_modules(folder: Path, max_length: int, dimension: int) -> None:
    """Rewrites how sentence-transformers puts a model together whose last token is pooled: a text, at most so long."""
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    pooling = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in MODES}
    write_json(
        folder / "1_Pooling/config.json", {"word_embedding_dimension": dimension, **pooling, "include_prompt": True}
    )
    _edit(
        folder / "modules.json",
        lambda modules: [
            {**one, "type": f"sentence_transformers.models.{one['type'].rpartition('.')[2]}"} for one in modules
        ],
    )


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    write_json(path, change(json.loads(path.read_text(encoding="utf-8"))))


def _with_rotary_base(config: dict[str, Any]) -> dict[str, Any]:
    """With `rope_theta` and, where positions are scaled, `rope_scaling`. Left out where layers differ in them."""
    rotary = dict(config.get("rope_parameters") or {})
    theta = rotary.pop("rope_theta", None)
    if theta is None:
        return config
    scaling = {"rope_scaling": rotary} if rotary.get("rope_type", "default") != "default" else {}
    return {**config, "rope_theta": theta, **scaling}


def _of_known_class(config: dict[str, Any]) -> dict[str, Any]:
    """With the class and the key of special tokens that both releases know."""
    config = dict(config)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = extra
        del config["extra_special_tokens"]
    return config
