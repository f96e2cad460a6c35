"""The paged KV cache: blocks that count (torch-free) and the tensors behind them."""
