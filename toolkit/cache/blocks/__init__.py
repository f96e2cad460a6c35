"""Blocks of the paged KV cache, counted without a tensor: pool, prefix index, block tables."""

from toolkit.cache.blocks.eviction import Eviction, FarthestUse, FirstIn, LeastUsed
from toolkit.cache.blocks.paged import (
    BlockCopy,
    BlockTable,
    Extension,
    Fork,
    PagedCache,
    PrefixMatch,
    Span,
)
from toolkit.cache.blocks.pool import BlockObserver, BlockPool, OutOfBlocks, PoolState
from toolkit.cache.blocks.prefix import block_hash, block_hashes
from toolkit.cache.blocks.snapshot import BlockSnapshot

__all__ = [
    "BlockCopy",
    "BlockObserver",
    "BlockPool",
    "BlockSnapshot",
    "BlockTable",
    "Eviction",
    "Extension",
    "FarthestUse",
    "FirstIn",
    "Fork",
    "LeastUsed",
    "OutOfBlocks",
    "PagedCache",
    "PoolState",
    "PrefixMatch",
    "Span",
    "block_hash",
    "block_hashes",
]
