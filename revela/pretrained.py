"""Models and tokenizers from local Hugging Face folders: safetensors only, no code of the folder's, nothing made up.

transformers would ask on the terminal whether a checkpoint's own code may run, and would draw missing weights at random.
Here both are errors.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from revela.errors import RevelaError

SAFE = {"trust_remote_code": False, "local_files_only": True}
UNUSED = ("pooler.",)  # weights of encoders that nothing here reads
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")  # what configurations call the tokens of a text at most


class PretrainedError(RevelaError):
    """A model that cannot be loaded or used. The message is one line."""


def load_model(kind: type, folder: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in a folder, by one of transformers' Auto classes, with weights of this type.

    Raises PretrainedError if the folder holds no model, lacks weights, or needs its own code.
    """
    _require_config(folder)
    try:
        with quietly():
            model, found = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFE
            )
    except SafetensorError as error:
        raise PretrainedError(f"{folder}: weights that cannot be read ({error})") from None
    except ValueError as error:
        raise PretrainedError(f"{folder}: {_reason(error)}") from None
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise PretrainedError(f"{folder}: its weights have other shapes than its config.json says") from None
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise PretrainedError(f"{folder}: {len(missing)} weights of {type(model).__name__} are missing: {missing[0]}")
    return model


def outline(kind: type, folder: str | Path) -> PreTrainedModel:
    """The model in a folder without its weights, by its configuration alone: layers and shapes, no memory.

    Raises PretrainedError if the folder holds no model that transformers knows.
    """
    _require_config(folder)
    try:
        with quietly(), torch.device("meta"):
            return kind.from_config(AutoConfig.from_pretrained(folder, **SAFE), trust_remote_code=False)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise PretrainedError(f"{folder}: {_reason(error)}") from None


def _require_config(folder: str | Path) -> None:
    if not Path(folder, "config.json").is_file():
        raise PretrainedError(f"{folder}: no config.json, so this is not the folder of a Hugging Face model")


def positions(model: nn.Module) -> int | None:
    """Tokens of a text at most, by the positions that a model knows; None where it does not limit them.

    Scaled rotary positions reach as far as their scaling says. Learned ones that begin after the pad's (RoBERTa) are
    fewer than the configuration counts.
    """
    config = model.config.get_text_config() if isinstance(model.config, PretrainedConfig) else model.config
    counts = (getattr(config, name, None) for name in POSITIONS)
    most = next((count for count in counts if isinstance(count, int) and count > 0), None)
    if most is None or getattr(config, "alibi", False):
        return None
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = scaling.get("original_max_position_embeddings") or most
    if isinstance(factor := scaling.get("factor"), (int, float)) and original >= most:
        most = int(factor * most)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            most = min(most, module.num_embeddings - module.padding_idx - 1)
    return most


def check_reading(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int, pooling: str, key: str
) -> None:
    """Raises PretrainedError where a model has fewer positions than `max_length`, or no EOS to pool at.

    key: of the setting that holds `max_length`, as errors name it.
    """
    if pooling == "eos" and tokenizer.eos_token_id is None:
        raise PretrainedError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token, at which the embedding would be "
            "read; set eos_token in its tokenizer_config.json, or choose pooling mean"
        )
    most = positions(model)
    if most is not None and max_length > most:
        raise PretrainedError(
            f"{key}: {max_length} tokens, but {tokenizer.name_or_path} has positions for {most}; valid: 4 to {most}"
        )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder. Raises PretrainedError if there is none that can be read, or if it needs its own code."""
    try:
        return AutoTokenizer.from_pretrained(folder, **SAFE)
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing narrower
        raise PretrainedError(f"{folder}: no tokenizer that can be read ({_reason(error)})") from None


def check_targets(model: nn.Module, targets: Iterable[str]) -> None:
    """Raises PretrainedError, which names the model's linear layers, for a target that is the name of no layer.

    PEFT passes over such a target where another one matches, and half of the model stays as it was.
    """
    names = [name for name, _ in model.named_modules()]
    odd = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if odd:
        linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
        there = dict.fromkeys(name.rpartition(".")[2] for name in linear if name != "lm_head")
        raise PretrainedError(
            f"training.lora.targets: {type(model).__name__} has no {', '.join(odd)}; its linear layers: {', '.join(there)}"
        )


def output_head(lm: nn.Module) -> nn.Module:
    """The module that turns a language model's hidden states into logits.

    Raises PretrainedError for a model that does more to its logits (Gemma 2, Granite).
    """
    for key in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(lm.config, key, None) not in (None, 1):
            raise PretrainedError(f"{type(lm).__name__}: its logits are changed after the head, by {key}")
    return lm.get_output_embeddings()


def check_weights(folder: str | Path) -> None:
    """Raises PretrainedError where files of a model's weights in safetensors are missing or were cut short.

    Their headers and sizes are read. A folder of pickles, which are converted when it is copied, passes.
    """
    index = Path(folder, "model.safetensors.index.json")
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = sorted(path.name for path in Path(folder).glob("*.safetensors"))
    if not names and not any(Path(folder).glob("*.bin")):
        raise PretrainedError(f"{folder}: no model.safetensors, so the model has no weights; copy the folder again")
    missing = [name for name in names if not Path(folder, name).is_file()]
    if missing:
        raise PretrainedError(
            f"{folder}: {len(missing)} of {len(names)} files of its weights are missing, {missing[0]} first; copy them"
        )
    for name in names:
        try:
            with safe_open(Path(folder, name), "pt"):
                pass
        except SafetensorError as error:
            raise PretrainedError(
                f"{folder}/{name}: weights that cannot be read ({error}); copy the file again"
            ) from None


def _reason(error: Exception) -> str:
    if unknown := re.search(r"model type `([^`]+)`", str(error)):
        return (
            f"its model_type {unknown[1]!r} is none that transformers {transformers.__version__} knows; a newer one may: "
            "pip install --upgrade transformers"
        )
    if "trust_remote_code" in str(error):
        return (
            "it needs code that comes with the checkpoint, which is never run; choose a model that transformers knows"
        )
    return " ".join(str(error).split())


@contextmanager
def quietly() -> Iterator[None]:
    """Within it transformers shows no bars, and no reports of weights that are of no use here, such as a head's.

    Nor do libraries warn of what others of them will have to change.
    """
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
