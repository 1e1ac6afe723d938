"""Models and tokenizers from local Hugging Face folders: safetensors only, no code of the folder's, nothing made up.

transformers would ask on the terminal whether a checkpoint's own code may run, and would draw missing weights at random.
Here both are errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from revela.errors import RevelaError

SAFE = {"trust_remote_code": False, "local_files_only": True}
UNUSED = ("pooler.",)  # weights of encoders that nothing here reads


class PretrainedError(RevelaError):
    """A model that cannot be loaded or used. The message is one line."""


def load_model(kind: type, folder: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in a folder, by one of transformers' Auto classes, with weights of this type.

    Raises PretrainedError if the folder holds no model, lacks weights, or needs its own code.
    """
    if not Path(folder, "config.json").is_file():
        raise PretrainedError(f"{folder}: no config.json, so this is not the folder of a Hugging Face model")
    try:
        with quietly():
            model, found = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFE
            )
    except SafetensorError as error:
        raise PretrainedError(f"{folder}: weights that cannot be read ({error})") from None
    except ValueError as error:
        raise PretrainedError(f"{folder}: {_reason(error)}") from None
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise PretrainedError(f"{folder}: {len(missing)} weights of {type(model).__name__} are missing: {missing[0]}")
    return model


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """The faster type of bfloat16 and float32 for matrix products on a device, by what the hardware has.

    bfloat16 on a GPU or a CPU with units for it (AMX), float32 on others: with AVX512-BF16 alone, float32 was faster. It
    is read from the hardware's flags and not measured, so that one machine always gives the same answer. Two machines may
    not: let it decide no result that is to be reproduced. Where an older torch cannot read a CPU's flags: float32.
    """
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = hasattr(torch.cpu, "get_capabilities") and torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder. Raises PretrainedError if there is none, or if it needs its own code."""
    try:
        return AutoTokenizer.from_pretrained(folder, **SAFE)
    except ValueError as error:
        raise PretrainedError(f"{folder}: {_reason(error)}") from None


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


def _reason(error: ValueError) -> str:
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
