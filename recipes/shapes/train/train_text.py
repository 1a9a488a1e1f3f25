"""Teach the text towers the grammar before any picture: their states must tell what stands where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.prompts import NOTHING, SLOTS, cell_labels, labels, prompt_table
from latentc.recipes.shapes.train.vocabulary import MAX_TOKENS

WIDTH = 128
BATCH = 128


def make_clip_text(tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
    """An untrained CLIP text tower of width ``WIDTH``."""
    return CLIPTextModel(clip_text_config(tokenizer))


def clip_text_config(tokenizer: PreTrainedTokenizerBase) -> CLIPTextConfig:
    """Shape of the CLIP text tower, the same in all models."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def make_t5(tokenizer: PreTrainedTokenizerBase) -> T5EncoderModel:
    """An untrained T5 encoder of width ``WIDTH`` with gated feed-forward, as in FLUX."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=2 * WIDTH,
        num_layers=4,
        num_heads=4,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=MAX_TOKENS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)


class Reading(nn.Module):
    """Reads a scene back from a tower's states; trained with the tower and then thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.ModuleList(nn.Linear(WIDTH, choices) for choices in SLOTS.values())
        self.queries = nn.Parameter(torch.randn(9, WIDTH) * 0.3)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.cells = nn.ModuleList(nn.Linear(WIDTH, choices + 1) for choices in NOTHING)

    def loss(
        self, states: torch.Tensor, pooled: torch.Tensor | None, wanted: torch.Tensor, cells: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Cross entropy over all labels, and the share of cells read entirely right.

        Args:
            states: [B, T, D] last hidden state.
            pooled: [B, D] summary, or None where the tower has none.
            wanted: [B, 8] from ``labels``.
            cells: [B, 9, 3] from ``cell_labels``.
        """
        queries = self.queries.expand(len(states), -1, -1)
        seen, _ = self.attention(queries, states, states, need_weights=False)
        logits = [head(seen) for head in self.cells]
        loss = sum(
            (
                functional.cross_entropy(out.flatten(0, 1), cells[..., i].flatten())
                for i, out in enumerate(logits)
            ),
            torch.zeros(()),
        )
        right = torch.stack([out.argmax(-1) == cells[..., i] for i, out in enumerate(logits)]).all(0).all(-1)
        if pooled is not None:
            for i, head in enumerate(self.slots):
                loss = loss + 0.2 * functional.cross_entropy(head(pooled), wanted[:, i])
        return loss, right.float().mean().item()


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_text(
    tower: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, steps: int, seed: int
) -> None:
    """Train ``tower`` and save it to ``folder``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = scenes_for_training()
    table, wanted, cells = prompt_table(tokenizer, scenes), labels(scenes), cell_labels(scenes)
    singles = np.flatnonzero((wanted[:, 5] == NOTHING[0]).numpy())
    reading = Reading()
    optimizer = torch.optim.AdamW([*tower.parameters(), *reading.parameters()], lr=1e-3, weight_decay=1e-2)
    progress = Progress(f"text {type(tower).__name__}", steps)
    tower.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1.5e-3)
        rows = rng.integers(0, len(scenes), BATCH)
        rows[: BATCH // 5] = rng.choice(singles, BATCH // 5)
        out = tower(table.draw(rows, rng))
        pooled = out.pooler_output if isinstance(tower, CLIPTextModel) else None
        picked = torch.from_numpy(rows)
        loss, right = reading.loss(out.last_hidden_state, pooled, wanted[picked], cells[picked])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            progress.write(step + 1, loss=loss.item(), right=right)
    tower.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
