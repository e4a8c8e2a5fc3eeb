"""The flagship's network without routing, for runtimes that run a graph of operations."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.mixture import Mixture, in_order
from detectors.tree_expert import TreeExperts


class DenseMixture(nn.Module):
    """A `Mixture` in which every Mamba expert sees every row, all of them in one product.

    Experts that a row is not sent to have the gate 0, so the log-odds are the mixture's own. One
    row takes some two hundred operations, whatever the number of experts and trees.
    """

    def __init__(self, network: Mixture) -> None:
        super().__init__()
        self.network = network
        self.trees = DenseTrees(network.trees)

    def forward(self, X: Tensor) -> Tensor:
        """Return the log-odds of anomaly, float32 (n,), of rows in the input's units, (n, d)."""
        scaled, measures = self.network.measure(X)
        mamba = self.mamba(self.network.encoding(scaled, measures))
        trees = self.trees(torch.cat([scaled, measures], dim=1))
        return self.network.combine(in_order(mamba, trees, measures))

    def mamba(self, encoded: Tensor) -> Tensor:
        """Return the gated sum of the Mamba experts' logits, (n, 2), of encoded rows, (n, m)."""
        router = self.network.router
        routing = router.gate(encoded)
        values, chosen = routing.topk(router.top_k, dim=1)
        gates = torch.zeros_like(routing).scatter(1, chosen, values.softmax(dim=1))
        tokens = self.network.tokenizer(encoded).T.unflatten(0, (-1, 1, self.network.d_model))
        assert self.network.stacked is not None
        logits = self.network.stacked(tokens)
        return (gates.T[:, None] * logits).sum(dim=0).T


class DenseTrees(nn.Module):
    """A `TreeExperts` that asks all questions of all trees at once."""

    column: Tensor
    border: Tensor
    bit: Tensor
    first_leaf: Tensor
    leaf: Tensor
    expert: Tensor
    bias: Tensor

    def __init__(self, trees: TreeExperts) -> None:
        super().__init__()
        depth, n_trees = trees.question.shape
        starts = torch.tensor(trees.ends[1:-1])  # of all experts' trees but the first one's
        number = torch.bucketize(torch.arange(n_trees), starts, right=True)
        self.register_buffer("column", trees.column[:, :n_trees].flatten())
        self.register_buffer("border", trees.border[:, :n_trees].flatten())
        self.register_buffer("bit", 2.0 ** torch.arange(depth))
        self.register_buffer("first_leaf", torch.arange(n_trees) * trees.leaf.shape[1])
        self.register_buffer("leaf", trees.leaf.flatten())
        self.register_buffer("expert", F.one_hot(number, len(trees.bias)).float())
        self.register_buffer("bias", trees.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits, float32 (n, number of experts), of rows, float32 (n, d)."""
        answers = (rows.index_select(1, self.column) > self.border).float()
        leaf = (self.bit @ answers.unflatten(1, (len(self.bit), -1))).long()
        values = self.leaf.index_select(0, (leaf + self.first_leaf).flatten()).view_as(leaf)
        return torch.addmm(self.bias, values, self.expert)
