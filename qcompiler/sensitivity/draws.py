"""Random tensors that depend on a seed and a name only, so that resumed work draws what uninterrupted work would have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def normal(seed: int, name: str, shape: Sequence[int]) -> torch.Tensor:
    """Independent normal numbers of mean 0 and variance 1, float32."""
    return torch.randn(tuple(shape), generator=_generator(seed, name))


def signs(seed: int, name: str, shape: Sequence[int]) -> torch.Tensor:
    """Independent numbers of -1 and 1, equally likely (Rademacher), float32."""
    return torch.randint(0, 2, tuple(shape), generator=_generator(seed, name)).to(torch.float32) * 2 - 1
