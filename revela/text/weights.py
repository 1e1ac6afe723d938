"""Weights that were published as pickles alone, written as safetensors.

A pickle is a program. `torch.load(weights_only=True)` builds tensors and runs nothing else of it; a file that asks for
more is refused. What was written must be the weights of the model that config.json describes: transformers itself
compares the names and shapes, as it will when the model is loaded, on a device that holds no data.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from revela.errors import RevelaError
from revela.files import sha256_file, write_json

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PICKLES = [SINGLE, "pytorch_model-*.bin", INDEX]


class WeightsError(RevelaError):
    """Weights that cannot be converted. The message is one line: the file, and what is wrong with it."""


def convert(pickles: str | Path, folder: str | Path) -> dict[str, str]:
    """Write the weights of pickles, one or several with an index, as safetensors; pickle -> its SHA-256.

    Args:
        pickles: The folder with `pytorch_model.bin`, or with shards and `pytorch_model.bin.index.json`.
        folder: The model's folder, with its config.json. Safetensors of as many shards are put there.

    Raises:
        WeightsError: There are none, one needs code, or they are not the weights of the config's model.
    """
    import torch  # these, and transformers below, here: most models are fetched without them
    from safetensors.torch import save_file

    pickles, folder = Path(pickles), Path(folder)
    shards = _shards(pickles)
    weight_map, total, hashes = {}, 0, {}
    for number, (name, expected) in enumerate(shards.items(), start=1):
        weights = _load(pickles / name)
        if expected is not None and expected != weights.keys():
            different = min(expected ^ weights.keys())
            raise WeightsError(f"{name}: differs from {INDEX} in {different}")
        target = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        # Copies, for safetensors holds no tensors that share memory, as those of a tied head do.
        save_file(
            {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in weights.items()},
            folder / target,
            metadata={"format": "pt"},
        )
        weight_map |= dict.fromkeys(weights, target)
        total += sum(value.nbytes for value in weights.values())
        hashes[name] = sha256_file(pickles / name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / "model.safetensors.index.json", index)
    (folder / INDEX).unlink(missing_ok=True)  # of files that are not here
    _check(folder)
    return hashes


def _shards(folder: Path) -> dict[str, set[str] | None]:
    """Pickle -> names of its weights by the index, or None where there is no index."""
    if (folder / SINGLE).is_file():
        return {SINGLE: None}
    if not (folder / INDEX).is_file():
        raise WeightsError(f"there is no {SINGLE}, and no {INDEX}")
    try:
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = {name: {key for key in weight_map if weight_map[key] == name} for name in sorted(weight_map.values())}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{INDEX}: no index of weights") from None
    for name in shards:
        if not re.fullmatch(r"pytorch_model-[\w-]+\.bin", name) or not (folder / name).is_file():
            raise WeightsError(f"{INDEX}: names {name!r}, which is not there")
    return shards


def _load(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file brings about
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise WeightsError(f"{path.name}: needs code to be read ({code[1]}), which is never run") from None
        raise WeightsError(f"{path.name}: not readable as a pickle of tensors ({type(error).__name__})") from None
    if not isinstance(weights, dict) or not weights:
        raise WeightsError(f"{path.name}: holds no names with tensors, but {type(weights).__name__}")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise WeightsError(f"{path.name}: {name!r} is not a dense tensor, but {type(value).__name__}")
    return weights


def _check(folder: Path) -> None:
    """The weights are those of the config's model. Heads, a pooler and the buffer position_ids may be there or not."""
    import transformers

    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = transformers.CONFIG_MAPPING  # of transformers' own classes alone, whatever code the checkpoint names
        if settings.get("model_type") not in known:
            raise WeightsError(f"config.json: model_type {settings.get('model_type')!r} is none of transformers' own")
        config = known[settings["model_type"]].from_dict(settings)
        model, found = transformers.MODEL_MAPPING[type(config)].from_pretrained(
            folder,
            config=config,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            local_files_only=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"config.json: {' '.join(str(error).split())[:200]}") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    kind = type(model).__name__
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
        raise WeightsError(f"{len(missing)} weights of the config's {kind} are missing, among them {missing[0]}")
    if mismatched := sorted(found["mismatched_keys"]):
        name, is_, should = mismatched[0]
        raise WeightsError(f"{name} has shape {list(is_)}, and the config's {kind} has {list(should)}")
    own = dict(model.named_children())
    for name in sorted(found["unexpected_keys"]):
        first = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
        if first in own and not name.endswith("position_ids"):
            raise WeightsError(f"{name} is no weight of the config's {kind}")
