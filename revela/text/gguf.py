"""A GGUF file, as llama.cpp has it, becomes a Hugging Face folder with the weights as safetensors in bfloat16."""

from __future__ import annotations

import struct
from pathlib import Path

from revela.errors import first_line
from revela.text.own_files import ResourceError


def dequantise(file: Path, folder: Path) -> None:
    """Write configuration, tokenizer and weights of a GGUF file into an existing folder.

    Quantised weights are multiplied out once. The folder is then like any other: it has no quantization_config.
    Raises ResourceError for a file that cannot be read, or of an architecture that transformers cannot read from GGUF.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from revela.pretrained import SAFE

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, **SAFE}
    try:
        quantized = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16, quantization_config=quantized)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except ImportError as error:
        raise ResourceError(
            f"{file}: {first_line(error)}; run `make setup`, or `pip install 'revela[paper]'`"
        ) from None
    except (ValueError, KeyError, OSError, NotImplementedError, struct.error) as error:
        raise ResourceError(f"{file}: not a GGUF file that transformers can read ({first_line(error)})") from None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
