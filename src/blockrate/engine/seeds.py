"""Random numbers as pure functions of a key, so that a resumed run draws what an unbroken one would have drawn.

The two functions hash their keys in two ways, where one would do. Either way decides what is learned, the order of
images and their crops or the noise: with another one no run could go on as it began. So both stay as they are.
"""

import hashlib
import json

import torch


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator whose stream depends on ``key`` alone, for instance (seed, step, sample index).

    Hashed, because neighbouring plain seeds such as ``seed + step`` make two runs share their draws.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    # torch takes 63 bits
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def uniform_from(*key: int | str) -> float:
    """Return a number in [0, 1) that depends on ``key`` alone, the same on every machine and version."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()
    # 53 bits are what a float holds exactly
    return (int.from_bytes(digest, "big") >> 11) / 2**53
