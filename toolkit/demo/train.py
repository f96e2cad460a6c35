"""Train the toy model from scratch: `python -m toolkit.demo.train`.

The corpus is generated, every conversation is seen once, and only answers are learned. A checkpoint
every ten minutes makes the run resumable; at each of them the weights are exported too.
"""

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit.demo import WEIGHTS
from toolkit.demo.batches import Batch, draw_batches
from toolkit.demo.export import export_weights, plot_losses
from toolkit.demo.muon import Muon
from toolkit.demo.samples import log_samples
from toolkit.demo.tokenizer import MAX_LENGTH, build_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run does; the defaults are those of the bundled weights.

    The learning rates rise, then fall along a cosine, whichever of the two limits is nearer: so a
    slow machine ends its schedule too.
    """

    seed: int = 0
    num_tokens: int = 8_000_000
    limit_s: float = 50 * 60
    # Per worker and step.
    tokens_per_batch: int = 2_048
    matrix_rate: float = 0.02
    vector_rate: float = 5e-3
    num_warmup_steps: int = 25
    checkpoint_every_s: float = 600.0
    # One process per core: they wait for each other once a step, not once an operation.
    num_workers: int = 2


@dataclass(slots=True)
class Progress:
    """How far a run has come; the training loop writes it."""

    step: int = 0
    num_tokens: int = 0
    num_answer_tokens: int = 0
    elapsed_s: float = 0.0


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Build the untrained model: 5.0 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        # Untied embeddings reach the size wanted with fewer layers, which trains faster.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def build_optimisers(
    model: LlamaForCausalLM, plan: TrainingPlan, worker: int
) -> list[torch.optim.Optimizer]:
    """Give the matrices inside the layers to Muon, embeddings and norms to AdamW."""
    inner = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inner_ids = {id(weight) for weight in inner}
    outer = [weight for weight in model.parameters() if id(weight) not in inner_ids]
    adamw = torch.optim.AdamW(outer, lr=plan.vector_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [Muon(inner, lr=plan.matrix_rate, worker=worker, num_workers=plan.num_workers), adamw]


def rate_factor(plan: TrainingPlan, progress: Progress) -> float:
    """Return the share of the peak learning rate to use now."""
    done = max(progress.num_tokens / plan.num_tokens, progress.elapsed_s / plan.limit_s)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return min((progress.step + 1) / plan.num_warmup_steps, cosine)


def answer_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the mean loss over answer tokens; only their scores are computed."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    answered = batch.targets != -100
    return torch.nn.functional.cross_entropy(
        model.lm_head(hidden[answered]), batch.targets[answered]
    )


class Run:
    """One worker of a training run: owns a copy of the model, the optimisers and the progress."""

    def __init__(self, plan: TrainingPlan, folder: Path, worker: int) -> None:
        torch.manual_seed(plan.seed)
        torch.set_num_threads(1)
        self.plan = plan
        self.folder = folder
        self.worker = worker
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.model = build_model(self.tokenizer)
        self.optimisers = build_optimisers(self.model, plan, worker)
        self.peaks = [plan.matrix_rate, plan.vector_rate]
        self.progress = Progress()
        self.losses: list[float] = []

    @property
    def checkpoint(self) -> Path:
        """The file that a stopped run continues from."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.progress = Progress(**saved["progress"])
        self.losses = saved["losses"]
        logger.info("resumed at step %d", self.progress.step)

    def save(self) -> None:
        """Write the checkpoint, export the weights and log what the model says by now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "progress": asdict(self.progress),
            "losses": self.losses,
        }
        torch.save(state, self.checkpoint)
        export_weights(self.model, self.tokenizer, WEIGHTS)
        log_samples(self.model, self.tokenizer)

    def _share(self, *figures: float) -> list[float]:
        """Average the gradients and some figures over the workers."""
        grads = [weight.grad for weight in self.model.parameters()]
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor(figures)])
        torch.distributed.all_reduce(flat)
        flat /= self.plan.num_workers
        for grad, shared in zip(
            grads, flat.split([grad.numel() for grad in grads] + [len(figures)]), strict=False
        ):
            grad.copy_(shared.view_as(grad))
        return flat[-len(figures) :].tolist()

    def step(self, batch: Batch, started_s: float) -> float:
        """Learn one batch per worker and return the loss."""
        plan, progress = self.plan, self.progress
        factor = rate_factor(plan, progress)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * factor
        loss = answer_loss(self.model, batch)
        loss.backward()
        num_answered = int((batch.targets != -100).sum())
        figures = self._share(
            loss.item(), batch.num_tokens, num_answered, time.monotonic() - started_s
        )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.num_tokens += round(figures[1] * plan.num_workers)
        progress.num_answer_tokens += round(figures[2] * plan.num_workers)
        progress.elapsed_s = figures[3]
        return figures[0]

    def batches(self) -> Iterator[Batch]:
        """Draw the batches that are still to be learned."""
        drawn = draw_batches(
            self.tokenizer,
            seed=self.plan.seed,
            worker=self.worker,
            num_workers=self.plan.num_workers,
            tokens_per_batch=self.plan.tokens_per_batch,
        )
        return islice(drawn, self.progress.step, None)

    def train(self) -> None:
        """Learn until the tokens or the time are used up; the first worker reports and saves."""
        plan, progress, leads = self.plan, self.progress, self.worker == 0
        self.model.train()
        started_s = time.monotonic() - progress.elapsed_s
        saved_s = progress.elapsed_s
        with tqdm(
            total=plan.num_tokens, initial=progress.num_tokens, mininterval=10, disable=not leads
        ) as bar:
            for batch in self.batches():
                self.losses.append(self.step(batch, started_s))
                bar.set_postfix(loss=f"{mean(self.losses[-50:]):.4f}", refresh=False)
                bar.update(progress.num_tokens - bar.n)
                if progress.elapsed_s - saved_s > plan.checkpoint_every_s:
                    saved_s = progress.elapsed_s
                    if leads:
                        self.save()
                if progress.num_tokens >= plan.num_tokens or progress.elapsed_s >= plan.limit_s:
                    break
        if leads:
            self.save()
            self.write_figures()

    def write_figures(self) -> None:
        """Write `training.json` and the plot of the loss beside the weights."""
        progress = self.progress
        figures = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "tokens": progress.num_tokens,
            "answer_tokens": progress.num_answer_tokens,
            "steps": progress.step,
            "seconds": round(progress.elapsed_s),
            "tokens_per_second": round(progress.num_tokens / progress.elapsed_s),
            "final_loss": round(mean(self.losses[-50:]), 4),
            "torch": torch.__version__,
            "plan": asdict(self.plan),
        }
        (WEIGHTS / "training.json").write_text(json.dumps(figures, indent=2) + "\n")
        plot_losses(self.losses, WEIGHTS / "loss.png")


def work(worker: int, plan: TrainingPlan, folder: Path) -> None:
    """Run one worker."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rendezvous = f"file://{folder.resolve()}/workers-{os.getppid()}"
    torch.distributed.init_process_group(
        "gloo", init_method=rendezvous, rank=worker, world_size=plan.num_workers
    )
    run = Run(plan, folder, worker)
    run.resume()
    run.train()
    torch.distributed.destroy_process_group()


def main() -> None:
    """Train, or continue a run that was stopped."""
    defaults = TrainingPlan()
    parser = argparse.ArgumentParser(description="Train the toy model from scratch.")
    parser.add_argument(
        "--folder", type=Path, default=Path("demo_training"), help="where the checkpoint goes"
    )
    parser.add_argument("--num-tokens", type=int, default=defaults.num_tokens)
    parser.add_argument("--limit-s", type=float, default=defaults.limit_s)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    chosen = parser.parse_args()
    plan = TrainingPlan(seed=chosen.seed, num_tokens=chosen.num_tokens, limit_s=chosen.limit_s)
    if not (chosen.folder / "tokenizer").exists():
        build_tokenizer(plan.seed).save_pretrained(chosen.folder / "tokenizer")
    torch.multiprocessing.spawn(work, args=(plan, chosen.folder), nprocs=plan.num_workers)


if __name__ == "__main__":
    main()
