"""An expert of Mamba-2 blocks."""

import torch
from torch import Tensor, nn

from detectors.mamba2 import Mamba2, inverse_rms, make_block

N_HEADS = 2
EPSILON = torch.finfo(torch.float32).eps


class MambaExpert(nn.Module):
    """Pre-norm residual Mamba-2 blocks and a linear head on the mean token.

    The norm has no scale of its own, which the block's first layer would only absorb.
    """

    def __init__(self, d_model: int, depth: int, device: torch.device) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(make_block(device, d_model=d_model) for _ in range(depth))
        self.head = nn.Linear(d_model, N_HEADS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, float32 (n_tokens, d_model, n), to two logits, (n, 2)."""
        for block in self.blocks:
            tokens = tokens + columns_first(block, tokens * inverse_rms(tokens, EPSILON))
        return self.head(tokens.mean(dim=0).T)


def columns_first(block: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a block of (n, n_tokens, d_model) to tokens, (n_tokens, d_model, n)."""
    if isinstance(block, Mamba2):
        return block.columns_first(tokens)
    return block(tokens.permute(2, 0, 1).contiguous()).permute(1, 2, 0)
