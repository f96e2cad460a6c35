"""Optimise weight matrices with Muon: momentum made orthogonal (Jordan et al., 2024).

Its authors report that it learns from fewer tokens than AdamW, and tokens are what two cores are
short of. torch.optim has a Muon, but it multiplies in bf16: on the processor that trained the
bundled weights, which has no instructions for it, 6 GFLOP/s instead of 75 in float32.
"""

import torch

# Coefficients of the quintic Newton-Schulz iteration of the original implementation.
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
NUM_ITERATIONS = 5


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix with the same singular vectors and singular values near one."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T  # [rows, rows]
        x = LINEAR * x + (CUBIC * gram + QUINTIC * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Step along the orthogonalised Nesterov momentum; only for matrices.

    Each worker makes its share of the matrices orthogonal, then they exchange the directions.

    >>> weight = torch.nn.Parameter(torch.eye(2))
    >>> optimiser = Muon([weight], lr=0.02, worker=0, num_workers=1)
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        *,
        lr: float,
        worker: int,
        num_workers: int,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self.worker = worker
        self.num_workers = num_workers

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix once."""
        for group in self.param_groups:
            directions = []
            for index, weight in enumerate(group["params"]):
                state = self.state[weight]
                buffer = state.setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                mine = index % self.num_workers == self.worker
                nesterov = weight.grad.lerp(buffer, group["momentum"])
                directions.append(orthogonalise(nesterov) if mine else torch.zeros_like(weight))
            flat = torch.cat([direction.flatten() for direction in directions])
            if self.num_workers > 1:
                torch.distributed.all_reduce(flat)
            sizes = [weight.numel() for weight in group["params"]]
            for weight, direction in zip(group["params"], flat.split(sizes), strict=True):
                # A tall matrix gets a larger step, so that its outputs move as much as those of a
                # wide one.
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.add_(direction.view_as(weight), alpha=-group["lr"] * scale)
