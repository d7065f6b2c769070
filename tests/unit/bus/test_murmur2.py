"""Our partitions are Kafka's."""

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from switchboard.bus.murmur2 import partition_hash, partition_of


@given(st.binary(max_size=70))
def test_every_key_hashes_as_in_kafkas_own_clients(key: bytes) -> None:
    assert partition_hash(key) == murmur2(key) & 0x7FFFFFFF


@pytest.mark.parametrize(
    ("key", "signed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_the_values_of_kafkas_own_test_suite(key: bytes, signed: int) -> None:
    assert partition_hash(key) == signed & 0x7FFFFFFF


@given(st.binary(max_size=20), st.integers(1, 50))
def test_a_partition_is_one_of_the_topics(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
