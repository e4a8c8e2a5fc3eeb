"""The flagship's network without routing or loops, for runtimes that run a graph of operations."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.mamba2 import EPSILON as GATED_EPSILON
from detectors.mixture import (
    EPSILON,
    HARDENED,
    HARDENED_TREES,
    PLAIN_TREES,
    REAL,
    REAL_TREES,
    MambaExpert,
    Mixture,
)
from detectors.tree_expert import TreeExperts


class DenseMixture(nn.Module):
    """A `Mixture` in which every Mamba expert sees every row, all of them in one product.

    Experts that a row is not sent to have the gate 0, so the log-odds are the mixture's own. One
    row takes some hundred operations, whatever the number of experts and trees.
    """

    head: Tensor
    head_bias: Tensor

    def __init__(self, network: Mixture) -> None:
        super().__init__()
        self.network = network
        experts: list[MambaExpert] = list(network.experts)  # type: ignore[arg-type]
        length = network.tokenizer.out_features // network.d_model
        depth = len(experts[0].blocks)
        self.blocks = nn.ModuleList(DenseBlock(experts, level, length) for level in range(depth))
        heads = [expert.head for expert in experts]
        self.register_buffer("head", torch.stack([head.weight for head in heads]))
        self.register_buffer("head_bias", torch.stack([head.bias for head in heads])[..., None])
        self.trees = DenseTrees(network.trees)

    def forward(self, X: Tensor) -> Tensor:
        """Return the log-odds of anomaly, float32 (n,), of rows in the input's units, (n, d)."""
        scaled, measures = self.network.measure(X)
        mamba = self.mamba(self.network.encoding(scaled, measures))
        trees = self.trees(torch.cat([scaled, measures], dim=1))
        opinions = [
            mamba[REAL],
            self.network.linear(scaled),
            trees[PLAIN_TREES],
            trees[REAL_TREES],
            measures[:, 0],
            mamba[HARDENED],
            trees[HARDENED_TREES],
        ]
        return self.network.combine(torch.stack(opinions, dim=1))

    def mamba(self, encoded: Tensor) -> Tensor:
        """Return the gated sum of the Mamba experts' logits, (2, n), of encoded rows, (n, m)."""
        router = self.network.router
        routing = router.gate(encoded)
        values, chosen = routing.topk(router.top_k, dim=1)
        gates = torch.zeros_like(routing).scatter(1, chosen, values.softmax(dim=1))
        tokens = self.network.tokenizer(encoded).T.unflatten(0, (-1, 1, self.network.d_model))
        for block in self.blocks:
            tokens = tokens + block(tokens)
        logits = self.head @ tokens.mean(dim=0) + self.head_bias
        return (gates.T[:, None] * logits).sum(dim=0)


class DenseBlock(nn.Module):
    """The blocks of all Mamba experts at one depth, and the norm before them.

    The arithmetic is that of `Mamba2.columns_first`, with sums over pairs of tokens in place of its
    loops. Shapes are (length, experts, channels, n).
    """

    taps: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    rate: Tensor
    skip: Tensor
    into: Tensor
    out: Tensor
    future: Tensor

    def __init__(self, experts: list[MambaExpert], depth: int, length: int) -> None:
        super().__init__()
        blocks: list[Any] = [expert.blocks[depth] for expert in experts]
        self.block = blocks[0]
        stacked = {
            "taps": [block.conv1d.weight.squeeze(1) for block in blocks],
            "conv_bias": [block.conv1d.bias[:, None] for block in blocks],
            "dt_bias": [block.dt_bias[:, None] for block in blocks],
            "rate": [-block.A_log.exp()[:, None] for block in blocks],
            "skip": [block.D[:, None] for block in blocks],
            "into": [block.in_proj.weight for block in blocks],
            "out": [block.out_proj.weight * block.norm.weight for block in blocks],
        }
        for name, tensors in stacked.items():
            self.register_buffer(name, torch.stack(tensors).detach())
        same = torch.eye(length)[:, :, None, None, None]
        future = torch.full((length, length), -torch.inf).triu(1)[:, :, None, None, None]
        self.register_buffer("future", future)
        self.register_buffer("skip", same * self.skip)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, (length, 1 or experts, d_model, n), to (length, experts, d_model, n)."""
        block = self.block
        inner, state = block.d_inner, block.d_state
        projected = self.into @ (tokens * inverse_rms(tokens))
        z, xBC, dt = projected.split([inner, inner + 2 * state, block.nheads], dim=2)
        x, B, C = F.silu(self.convolve(xBC)).split([inner, state, state], dim=2)
        dt = F.softplus(dt + self.dt_bias)
        log_decay = torch.cumsum(dt * self.rate, dim=0)
        affinity = (C[:, None] * B).sum(dim=3, keepdim=True)
        decay = torch.exp(log_decay[:, None] - log_decay + self.future)
        attention = (affinity * decay * dt + self.skip)[:, :, :, :, None]
        y = (attention * x.unflatten(2, (block.nheads, block.headdim))).sum(dim=1).flatten(2, 3)
        y = y * F.silu(z)
        return (self.out @ y) * inverse_rms(y, GATED_EPSILON)

    def convolve(self, x: Tensor) -> Tensor:
        """Apply every expert's `conv1d` causally."""
        y = x * self.taps[..., -1:] + self.conv_bias
        for shift in range(1, min(len(x), self.taps.shape[-1])):
            shifted = torch.cat([torch.zeros_like(x[:shift]), x[:-shift]])
            y = y + shifted * self.taps[..., -1 - shift, None]
        return y


class DenseTrees(nn.Module):
    """A `TreeExperts` that asks all questions of all trees at once."""

    column: Tensor
    border: Tensor
    bit: Tensor
    first_leaf: Tensor
    leaf: Tensor
    bias: Tensor

    def __init__(self, trees: TreeExperts) -> None:
        super().__init__()
        depth, n_trees = trees.question.shape
        self.ends = trees.ends
        self.register_buffer("column", trees.column[:, :n_trees].flatten())
        self.register_buffer("border", trees.border[:, :n_trees].flatten())
        self.register_buffer("bit", 2.0 ** torch.arange(depth)[:, None])
        self.register_buffer("first_leaf", torch.arange(n_trees) * trees.leaf.shape[1])
        self.register_buffer("leaf", trees.leaf.flatten())
        self.register_buffer("bias", trees.bias)

    def forward(self, rows: Tensor) -> list[Tensor]:
        """Return each ensemble's logits, float32 (n,), of rows, float32 (n, d)."""
        answers = (rows.index_select(1, self.column) > self.border).float()
        leaf = (answers.unflatten(1, (len(self.bit), -1)) * self.bit).sum(dim=1).long()
        values = self.leaf.index_select(0, (leaf + self.first_leaf).flatten()).view_as(leaf)
        parts = [values[:, start:end].sum(dim=1) for start, end in pairwise(self.ends)]
        return [part + bias for part, bias in zip(parts, self.bias, strict=True)]


def inverse_rms(x: Tensor, epsilon: float = EPSILON) -> Tensor:
    """One over the root mean square of the channels of `x`, (length, experts, channels, n)."""
    return torch.rsqrt((x * x).mean(dim=2, keepdim=True) + epsilon)
