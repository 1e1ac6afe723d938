"""What surrounds the matrix products of a decoder's layers, compiled by torch.compile for any number of tokens.

Norms, activations and adapters read and write memory more than they compute, so one compiled kernel in place of several
saves time. Attention stays as it is, because it depends on each batch's lengths.
"""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from revela.errors import RevelaError

COMPILERS = ("g++", "clang++", "gcc", "clang")
GRAPHS = 64  # kinds of layers of both models, with and without gradients; by default torch gives up after 8


class CompilationError(RevelaError):
    """A machine on which nothing can be compiled. The message is one line."""


def compile_layers(model: nn.Module) -> None:
    """Has the parts of each layer of a transformers decoder, except attention, compiled when they are first called.

    model: PEFT-wrapped or not; its parameters keep their names. Raises CompilationError without a C++ compiler.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise CompilationError(
            f"training.compile: no C++ compiler on PATH; install one of {', '.join(COMPILERS)}, name it in CXX, "
            "or set compile: false"
        )
    torch._dynamo.config.recompile_limit = GRAPHS
    for layer in model.get_decoder().layers:
        for name, part in layer.named_children():
            if name != "self_attn":
                part.compile(dynamic=True)
