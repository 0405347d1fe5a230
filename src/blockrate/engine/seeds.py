"""Random draws as pure functions of a key, so that a resumed run draws what an unbroken one would have drawn."""

import hashlib

import torch


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator whose stream depends on ``key`` alone, for instance (seed, step, sample index).

    Hashed, because neighbouring plain seeds such as ``seed + step`` make two runs share their draws.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
