"""S of section 3.3: the cosines of a batch's queries and passages over a temperature, which all objectives begin with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(queries: Tensor, passages: Tensor, *, temperature: float, dtype: torch.dtype | None = None) -> Tensor:
    """S_ij / tau: the cosine of query i and passage j over the temperature.

    The precision matters at tau = 1e-4. Near 0.8 one step of a bfloat16 cosine is 0.004, which is 39 nats, so rows
    become one-hot or exact ties; in float32 they do not. Autocast is therefore kept out.

    Args:
        queries: [n, d], of any length; normalised here.
        passages: [m, d], likewise.
        temperature: tau > 0.
        dtype: precision of the normalisation, product and division; None: that of `queries`.

    Returns:
        [n, m] in float32 (float64 for float64 input), whatever `dtype` was.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")
    dtype = dtype or queries.dtype
    with torch.autocast(queries.device.type, enabled=False):
        cosines = F.normalize(queries.to(dtype), dim=-1) @ F.normalize(passages.to(dtype), dim=-1).T
        return (cosines / temperature).to(torch.promote_types(dtype, torch.float32))
