"""The flagship's network: sparse Mamba-2 experts beside neighbours, trees and a memory."""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.mamba_expert import N_HEADS, MambaExpert
from detectors.memory import N_MEASURES, Memory
from detectors.neighbour_expert import NeighbourExpert
from detectors.preprocessing import PiecewiseLinearEncoding
from detectors.router import NoisyTopKRouter, by_expert
from detectors.stacked import StackedExperts
from detectors.standardised import Standardised
from detectors.tree_expert import TreeExperts

REAL, HARDENED = range(N_HEADS)
REAL_TREES, HARDENED_TREES = range(2)
N_UNHARDENED = 4
ORDER = [0, 6, 2, 4, 1, 3]  # of the opinions among Mamba experts' and trees' logits and measures
# of the opinions of Mamba experts, neighbours, trees of real rows, memory, second head and trees of
# all rows: a constant, what the memory's trust is multiplied by, and what n / (n + HALFWAY) is, n
# being the number of real training rows
WEIGHTS = (0.75, 3.0, 0.0, 0.0, 0.0, 0.0)
TRUST_WEIGHTS = (0.0, 0.0, 0.0, 3.0, 0.75, 3.0)
SIZE_WEIGHTS = (0.0, 0.0, 4.5, 1.5, 0.0, 0.0)
HALFWAY = 1000
BLOCK = 1024  # rows; what is between two layers then fits into a core's cache


class Sizes(NamedTuple):
    """What determines the shapes of a `Mixture`."""

    n_features: int
    n_bins: int
    n_tokens: int
    d_model: int
    depth: int
    n_experts: int
    top_k: int
    n_trees: int
    n_hardened_trees: int
    n_normals: int
    n_known: int


class Mixture(Standardised):
    """Preprocessing, router and sparse Mamba experts, beside experts that see every row.

    Six opinions are formed of a row. Four are there before hardening: of the Mamba experts, of a
    neighbour expert and of boosted trees, all of these on known anomalies against the rest, and of
    a memory of normal rows. Two come with it: of a second head of the Mamba experts and of further
    trees, both trained on known and synthetic anomalies together. Real anomalies, few as they may
    be, thus keep their say among thousands of synthetic ones, and members err differently. What
    remembered rows say of a row are columns of the Mamba experts and of the trees: that novelty
    helps a supervised model is XGBOD's finding (Zhao & Hryniewicki 2018).
    """

    weight: Tensor
    offset: Tensor
    stacked: StackedExperts | None

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        super().__init__(len(WEIGHTS))
        self.encoding = PiecewiseLinearEncoding(sizes.n_features, sizes.n_bins)
        self.memory = Memory(sizes.n_normals, sizes.n_features)
        n_inputs = self.encoding.n_outputs + N_MEASURES + 1
        self.tokenizer = nn.Linear(n_inputs, sizes.n_tokens * sizes.d_model)
        self.d_model = sizes.d_model
        self.router = NoisyTopKRouter(n_inputs, sizes.n_experts, sizes.top_k)
        self.experts = nn.ModuleList(
            MambaExpert(sizes.d_model, sizes.depth, device) for _ in range(sizes.n_experts)
        )
        self.neighbours = NeighbourExpert(sizes.n_normals, sizes.n_known, sizes.n_features)
        self.trees = TreeExperts(sizes.n_trees, sizes.n_hardened_trees)
        self.register_buffer("weight", torch.tensor(WEIGHTS))
        self.register_buffer("offset", torch.zeros(()))

    def train(self, mode: bool = True) -> Self:
        """Go on training, or, with `mode` False, stack the experts for scoring."""
        self.stacked = None if mode else StackedExperts(self.experts)
        return super().train(mode)

    def forward(self, X: Tensor) -> Tensor:
        """Return the log-odds of anomaly, float32 (n,), of rows in the input's units, (n, d)."""
        return self.combine(self.opinions(*in_blocks(self.measure, X)))

    def measure(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Scale rows, (n, d), and compare them with remembered ones; see `compare`."""
        scaled = self.encoding.scaler(X)
        return scaled, self.compare(scaled)

    def compare(self, scaled: Tensor) -> Tensor:
        """Return what remembered rows say of scaled rows, (n, d).

        Returns:
            float32 (n, 3): the memory's two measures, and the neighbour expert's opinion.
        """
        return torch.cat([self.memory(scaled), self.neighbours(scaled)[:, None]], dim=1)

    def opinions(self, scaled: Tensor, measures: Tensor) -> Tensor:
        """Return every member's logit, float32 (n, 6).

        Args:
            scaled: scaled rows, float32 (n, d).
            measures: what remembered rows say of them, float32 (n, 3).
        """
        *routing, trees = in_blocks(self.consider, scaled, measures)
        return in_order(self.mamba(*routing), trees, measures)

    def mamba(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Return the gated sum of the Mamba experts' logits, (n, 2); arguments as in `route`."""
        assert self.stacked is not None
        return self.stacked.score(tokens, gates, chosen)

    def consider(self, scaled: Tensor, measures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Look at scaled rows, (n, d), and what remembered rows say of them, (n, 3).

        Returns:
            what `mamba` takes; the trees' logits, (n, 2).
        """
        trees = self.trees(torch.cat([scaled, measures], dim=1))
        encoded = self.encoding(scaled, measures)
        routing = self.router.choose(self.router.gate(encoded))
        return self.tokenizer(encoded), *routing, trees

    def combine(self, opinions: Tensor) -> Tensor:
        """Return the log-odds of anomaly, (n,), from opinions, (n, 6).

        An opinion is standardised by the training rows labelled 0, so that all speak in one unit,
        and says `normal` with the logistic probability that is 1/2 at one deviation. A row is
        normal if all say so (a noisy or): weighted log-probabilities of being normal are summed.
        `offset` moves the log-odds so that a share of the training rows labelled 0 is above 0.
        """
        surprise = (self.weight * F.softplus(self.standardise(opinions) - 1)).sum(dim=1)
        surprise = surprise.clamp(min=1e-30)
        return surprise + torch.log(-torch.expm1(-surprise)) - self.offset

    @torch.no_grad()
    def calibrate(self, scaled: Tensor, measures: Tensor, contamination: float) -> None:
        """Standardise the opinions and set the offset, from training rows labelled 0.

        Args:
            scaled: scaled rows, float32 (n, d).
            measures: what remembered rows say of them, none being measured against itself.
            contamination: share of them that shall score above 0, so measured.
        """
        opinions = self.opinions(scaled, measures)
        self.learn_spread(opinions, 1e-2)
        self.offset.zero_()
        self.offset.copy_(self.combine(opinions).double().quantile(1 - contamination))

    def weigh(self, n_rows: int, hardened: bool) -> None:
        """Weigh the opinions: memory and trees of real rows by their number, novelty by the trust.

        Those of synthetic rows count if `hardened`.
        """
        constant, novelty, size = map(torch.tensor, (WEIGHTS, TRUST_WEIGHTS, SIZE_WEIGHTS))
        enough = n_rows / (n_rows + HALFWAY)
        self.weight.copy_(constant + float(self.memory.trust) * novelty + enough * size)
        if not hardened:
            self.weight[N_UNHARDENED:] = 0

    def route(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Send rows to their experts, each of which sees its own.

        Args:
            tokens: float32 (n, n_tokens * d_model).
            gates: float32 (n, top_k).
            chosen: numbers of the experts, int64 (n, top_k).

        Returns:
            for each pair of a row and an expert, sorted by expert: the row's number (r,), its
            gate (r, 1) and the expert's logits (r, 2).
        """
        routed, order, counts = by_expert(chosen, len(self.experts))
        logits = [
            expert(tokens[rows].T.unflatten(0, (-1, self.d_model)))
            for expert, rows in zip(self.experts, routed.split(counts.tolist()), strict=True)
            if len(rows)
        ]
        return routed, gates.flatten()[order, None], torch.cat(logits)

    def loss(
        self, batches: list[Tensor], synthetic_ratio: float, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy of every Mamba expert, weighted by its gates (Jacobs et al. 1991).

        Experts answer for themselves and not for their mixture, so that they stay an ensemble.

        Args:
            batches: encoded normal, known and, if any, synthetic rows, each float32 (m, n_inputs).
            synthetic_ratio: weight of all synthetic rows for that of all known anomalies; they
                count as much as the root of the memory's trust.
            generator: of the routing noise.
        """
        encoded, m = torch.cat(batches), len(batches[0])
        kind = torch.arange(len(batches), device=encoded.device).repeat_interleave(m)
        targets = torch.stack([kind == 1, kind >= 1], dim=1).float()
        counted = torch.ones_like(targets)
        counted[2 * m :, REAL] = 0
        counted[2 * m :, HARDENED] = synthetic_ratio * self.memory.trust.sqrt()
        gates, chosen, balance = self.router(encoded, generator)
        routed, gate, logits = self.route(self.tokenizer(encoded), gates, chosen)
        weight = gate * counted[routed] / (2 * m)
        errors = F.binary_cross_entropy_with_logits(logits, targets[routed], reduction="none")
        return 0.01 * balance + (weight * errors).sum()


def in_order(mamba: Tensor, trees: Tensor, measures: Tensor) -> Tensor:
    """Return the opinions, float32 (n, 6), in the order of `WEIGHTS`.

    Args:
        mamba: logits of the experts' two heads, (n, 2).
        trees: logits of the two experts, (n, 2).
        measures: what remembered rows say, (n, 3); the memory's second one is no opinion.
    """
    return torch.cat([mamba, trees, measures], dim=1)[:, ORDER]


def in_blocks(function: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
    """Apply a function of rows to a block of them at a time, and join its results."""
    blocks = zip(*(part.split(BLOCK) for part in rows), strict=True)
    return tuple(map(torch.cat, zip(*(function(*block) for block in blocks), strict=True)))
