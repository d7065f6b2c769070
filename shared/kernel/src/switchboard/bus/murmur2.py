"""Kafka's default choice of a partition for a key, so that every producer in any language agrees with ours."""

import struct
from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


# A key comes back within moments (an outcome, its receipt) or hardly ever. 65,536 of them took 17 MB of each process.
@lru_cache(maxsize=4_096)
def partition_hash(key: bytes) -> int:
    """The 31-bit murmur2 hash the partition number is taken from."""
    size = len(key)
    words = size // 4
    value = _SEED ^ size
    for word in struct.unpack_from(f"<{words}I", key):
        word = word * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        value = (value * _MULTIPLIER & _MASK) ^ word
    if rest := key[words * 4 :]:
        value = (value ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return (value ^ value >> 15) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a topic with that many partitions."""
    return partition_hash(key) % partitions
