"""The arithmetic that this machine is fast in."""

from __future__ import annotations

from typing import Literal


def fast_precision(device: str | None = None) -> Literal["bf16", "fp32"]:
    """The precision in which a device multiplies matrices faster, by what the hardware has.

    bf16 on a GPU or a CPU with units for it (AMX), fp32 on others: with AVX512-BF16 alone, fp32 was faster. It is read
    from the hardware's flags and not measured, so that one machine always gives the same answer. Two machines may not:
    where a result is to be the same on any machine, name the precision. Where an older torch cannot read a CPU's flags:
    fp32.

    Args:
        device: As torch names it; None: a GPU if there is one, else the CPU.
    """
    import torch  # takes seconds, and what imports this module is light

    gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = hasattr(torch.cpu, "get_capabilities") and torch.cpu.get_capabilities().get("amx_bf16", False)
    return "bf16" if fast else "fp32"
