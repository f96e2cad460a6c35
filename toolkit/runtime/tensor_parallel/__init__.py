"""One model in several processes of one machine: ``LLM(..., tensor_parallel=N)``.

Every process has a part of each layer and of the KV cache (models.sharding says which), and they
add what they computed twice a layer. Engine, scheduler and sampler are in the first process alone;
the others do what it tells them, and end with it.
"""

from toolkit.runtime.tensor_parallel.decoder import ShardedDecoder
from toolkit.runtime.tensor_parallel.start import part_of, refuse_sharding, start_sharded
from toolkit.runtime.tensor_parallel.storage import ShardedStorage

__all__ = ["ShardedDecoder", "ShardedStorage", "part_of", "refuse_sharding", "start_sharded"]
