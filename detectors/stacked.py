"""The Mamba experts' arithmetic for many experts in one product, for scoring."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from detectors.mamba2 import Weights, apply_blocks, inverse_rms
from detectors.mamba_expert import EPSILON, N_HEADS
from detectors.router import by_expert

CHUNK = 128  # rows that are sent to an expert together
TOGETHER = 4096  # rows that the experts see at once


class StackedExperts(nn.Module):
    """The weights of Mamba experts, stacked: many experts take as many calls as a few.

    The arithmetic is that of `MambaExpert.forward`. Shapes are (length, experts, channels, n).
    """

    head: Tensor
    head_bias: Tensor

    def __init__(self, experts: Iterable[Any]) -> None:
        super().__init__()
        blocks, heads = zip(*((expert.blocks, expert.head) for expert in experts), strict=True)
        self.n_experts, self.d_model = len(heads), heads[0].in_features
        self.blocks = nn.ModuleList(map(StackedBlock, zip(*blocks, strict=True)))
        buffers = {
            "head": torch.stack([head.weight for head in heads]),
            "head_bias": torch.stack([head.bias for head in heads])[..., None],
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor.detach(), persistent=False)

    def score(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Return the gated sum of the logits of each row's experts, float32 (n, 2).

        Each expert's rows are sent in chunks of one size, the last one filled up with any rows.

        Args:
            tokens: float32 (n, n_tokens * d_model).
            gates: float32 (n, top_k).
            chosen: numbers of the experts, int64 (n, top_k).
        """
        routed, order, counts = by_expert(chosen, self.n_experts)
        size = min(CHUNK, max(1, len(routed) // self.n_experts))
        n_chunks = (counts + size - 1) // size
        spare = n_chunks * size - counts
        shift = (spare.cumsum(0) - spare).repeat_interleave(counts)
        place = torch.arange(len(routed), device=shift.device) + shift
        rows = place.new_zeros(int(n_chunks.sum()) * size).index_copy(0, place, routed)
        experts = torch.arange(self.n_experts, device=counts.device).repeat_interleave(n_chunks)
        columns, n_together = tokens.T.contiguous(), max(1, TOGETHER // size)
        groups = zip(rows.view(-1, size).split(n_together), experts.split(n_together), strict=True)
        logits = [
            self(self._gather(columns, group), each).transpose(1, 2).flatten(0, 1)
            for group, each in groups
        ]
        gated = gates.flatten()[order, None] * torch.cat(logits).index_select(0, place)
        return gated.new_zeros(len(tokens), N_HEADS).index_add(0, routed, gated)

    def _gather(self, columns: Tensor, rows: Tensor) -> Tensor:
        """Return the tokens of groups of rows, int64 (m, size), as (length, m, d_model, size)."""
        gathered = columns.index_select(1, rows.flatten()).unflatten(1, rows.shape)
        return gathered.unflatten(0, (-1, self.d_model)).transpose(1, 2).contiguous()

    def forward(self, tokens: Tensor, experts: Tensor | slice = slice(None)) -> Tensor:
        """Map tokens, (length, 1 or m, d_model, n), to the logits of m experts, (m, 2, n).

        Args:
            tokens: float32; of m groups of rows, or of one that all experts see.
            experts: the number of each group's expert, int64 (m,); by default each once.
        """
        for block in self.blocks:
            tokens = tokens + block(tokens * inverse_rms(tokens, EPSILON), experts)
        return self.head[experts] @ tokens.mean(dim=0) + self.head_bias[experts]


class StackedBlock(nn.Module):
    """Several Mamba-2 blocks' weights, one buffer a kind."""

    def __init__(self, blocks: tuple[Any, ...]) -> None:
        super().__init__()
        stacked = map(torch.cat, zip(*map(Weights.of, blocks), strict=True))
        for name, tensor in zip(Weights._fields, stacked, strict=True):
            self.register_buffer(name, tensor.detach(), persistent=False)

    def forward(self, tokens: Tensor, experts: Tensor | slice) -> Tensor:
        """Map tokens, (length, 1 or m, d_model, n), to (length, m, d_model, n)."""
        chosen = Weights(*(getattr(self, name)[experts] for name in Weights._fields))
        return apply_blocks(chosen, tokens)
