"""Write the trained model as a Hugging Face folder, and plot how it learned."""

from copy import deepcopy
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def export_weights(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Save a bf16 copy of the model, and its tokenizer, in Hugging Face form."""
    stored = deepcopy(model).to(torch.bfloat16)
    stored.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # What a chat uses that says nothing else: lively enough to differ, cool enough to be right.
        do_sample=True,
        temperature=0.3,
    )
    stored.save_pretrained(folder)
    # Answering samples in a batch leaves padding switched on, and the file would keep it so.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)


def plot_losses(losses: list[float], path: Path) -> None:
    """Plot the loss of every step and its running mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    window = min(25, len(losses))
    means = [sum(losses[end - window : end]) / window for end in range(window, len(losses) + 1)]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(losses, color="0.8", linewidth=0.8, label="one step")
    axes.plot(range(window - 1, len(losses)), means, label=f"mean of {window} steps")
    axes.set(
        xlabel="step",
        ylabel="loss on answer tokens",
        yscale="log",
        title="Training of the toy model",
    )
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
