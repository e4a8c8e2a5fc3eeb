"""The sparse router: which experts see a row."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NoisyTopKRouter(nn.Module):
    """Noisy top-k gating with a load-balancing loss (Shazeer et al. 2017, section 2.1 and 4).

    Importance is here the mean softmax over all experts, for the gate of one expert a row is 1:
    then the balance loss alone trains the router, and the noise shows experts each other's rows.
    """

    def __init__(self, n_inputs: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(n_inputs, n_experts)
        self.noise = nn.Linear(n_inputs, n_experts)
        nn.init.zeros_(self.noise.weight)
        self.top_k = top_k

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Choose experts in training, with noise.

        Returns:
            gates and numbers of each row's experts, both (n, top_k), and the balance loss.
        """
        logits = self.gate(x)
        noise = torch.randn(logits.shape, generator=generator).to(logits.device)
        logits = logits + F.softplus(self.noise(x)) * noise
        importance = logits.softmax(dim=1).mean(dim=0)
        return *self.choose(logits), importance.var(correction=0) / importance.mean().square()

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return gates and numbers of the experts, both (n, top_k), from logits, (n, E).

        Among 32 experts this takes a third of the time of `topk`.
        """
        left, best = logits.detach().clone(), []
        for _ in range(self.top_k):
            best.append(left.max(dim=1, keepdim=True).indices)
            left.scatter_(1, best[-1], -torch.inf)
        chosen = torch.cat(best, dim=1)
        return logits.gather(1, chosen).T.contiguous().softmax(dim=0).T, chosen


def by_expert(chosen: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort pairs of a row and an expert by expert.

    Args:
        chosen: numbers of the experts, int64 (n, top_k).
        n_experts: how many there are.

    Returns:
        for each pair, sorted, its row's number and its own in `chosen`, both (n * top_k,); the
        number of pairs of each expert, (n_experts,).
    """
    pairs = chosen.flatten()
    order = np.argsort(pairs.cpu().numpy().astype(np.uint16), kind="stable")  # by radix
    places = torch.from_numpy(order).to(pairs.device)
    return places // chosen.shape[1], places, pairs.bincount(minlength=n_experts)
