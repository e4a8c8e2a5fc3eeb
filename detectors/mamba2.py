"""The Mamba-2 block (Dao & Gu 2024, "Transformers are SSMs", arXiv 2405.21060) in plain torch.

Parameter names and shapes are those of `mamba_ssm.Mamba2` with one group and no tensor
parallelism, so that a checkpoint of either loads in the other. The token sequences here are short
(2 to 8), so the state-space recurrence is computed in its quadratic "dual" form.
"""

import importlib.util
import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5  # of the gated norm
HEADDIM = 8  # channels that share one decay


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """One over the root mean square of the channels of `x`, (..., channels, batch)."""
    return torch.rsqrt((x * x).mean(dim=-2, keepdim=True) + eps)


class Mamba2(nn.Module):
    """Mamba-2 block, (batch, length, d_model) -> (batch, length, d_model), causal along length.

    Args:
        d_model: width of a token.
        d_state: size N of the state-space model's state.
        d_conv: width of the causal depthwise convolution.
        expand: inner width is `expand * d_model`.
        headdim: channels P that share one decay; must divide the inner width.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 4,
        d_conv: int = 4,
        expand: int = 1,
        headdim: int = HEADDIM,
    ) -> None:
        super().__init__()
        self.d_state, self.d_conv, self.headdim = d_state, d_conv, headdim
        self.d_inner = expand * d_model
        if self.d_inner % headdim:
            raise ValueError(f"headdim {headdim} does not divide the inner width {self.d_inner}")
        n_heads = self.d_inner // headdim
        conv_dim = self.d_inner + 2 * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + conv_dim + n_heads, bias=False)
        self.conv1d = nn.Conv1d(conv_dim, conv_dim, d_conv, groups=conv_dim, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(torch.empty(n_heads))
        self.A_log = nn.Parameter(torch.empty(n_heads))
        self.D = nn.Parameter(torch.ones(n_heads))
        self.norm = nn.RMSNorm(self.d_inner, EPSILON)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw dt log-uniform in [1e-3, 0.1] and A uniform in [1, 16], as `mamba_ssm` does."""
        self.dt_bias.uniform_(math.log(1e-3), math.log(0.1))
        dt = self.dt_bias.exp().clamp(min=1e-4)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.A_log.uniform_(1, 16).log_()

    def forward(self, u: Tensor) -> Tensor:
        """Map tokens `u`, float32 (batch, length, d_model), to the same shape."""
        return self.columns_first(u.permute(1, 2, 0)).permute(2, 0, 1)

    def columns_first(self, u: Tensor) -> Tensor:
        """Map tokens `u`, float32 (length, d_model, batch), to the same shape."""
        return apply_blocks(Weights.of(self), u[:, None]).squeeze(1)


class Weights(NamedTuple):
    """The weights of m blocks of one size, in the form that `apply_blocks` takes them."""

    taps: Tensor  # (m, channels, d_conv), of the convolution
    conv_bias: Tensor  # (m, channels, 1)
    dt_bias: Tensor  # (m, heads, 1)
    rate: Tensor  # (m, heads, 1), the A of the paper
    skip: Tensor  # (m, heads, 1), the D of the paper
    into: Tensor  # (m, inner width + channels + heads, d_model)
    out: Tensor  # (m, d_model, inner width), with the norm's weight taken in

    @classmethod
    def of(cls, block: Any) -> Self:
        """Return those of one block, m = 1: a `Mamba2`, ours or `mamba_ssm`'s."""
        weights = cls(
            block.conv1d.weight.squeeze(1),
            block.conv1d.bias[:, None],
            block.dt_bias[:, None],
            -block.A_log.exp()[:, None],
            block.D[:, None],
            block.in_proj.weight,
            block.out_proj.weight * block.norm.weight,
        )
        return cls(*(weight[None] for weight in weights))


def apply_blocks(weights: Weights, tokens: Tensor) -> Tensor:
    """Apply m blocks to tokens, float32 (length, 1 or m, d_model, n): (length, m, d_model, n).

    In this layout channels are split without a copy, and every elementwise step runs along the n
    rows: on a CPU a third of the time of (n, length, channels). The norm is `mamba_ssm`'s
    RMSNormGated with `norm_before_gate=False`; what it scales a token by is applied to the fewer
    channels that come out.
    """
    inner, n_heads = weights.out.shape[2], weights.skip.shape[1]
    channels = weights.taps.shape[1]
    state = (channels - inner) // 2
    z, xBC, dt = (weights.into @ tokens).split([inner, channels, n_heads], dim=2)
    x, B, C = F.silu(convolve(weights, xBC)).split([inner, state, state], dim=2)
    heads, dt = x.unflatten(2, (n_heads, -1)), F.softplus(dt + weights.dt_bias)
    y = dual_form(weights, heads, dt, B, C).flatten(2, 3) * F.silu(z)
    return (weights.out @ y) * inverse_rms(y, EPSILON)


def convolve(weights: Weights, x: Tensor) -> Tensor:
    """Convolve (length, m, channels, n) causally along the length, tap by tap."""
    taps = weights.taps.unbind(dim=2)[::-1]
    y = x * taps[0][..., None] + weights.conv_bias
    for shift in range(1, min(len(x), len(taps))):
        later = torch.addcmul(y[shift:], x[:-shift], taps[shift][..., None])
        y = torch.cat([y[:shift], later])
    return y


def dual_form(weights: Weights, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """State-space output as masked attention (the paper's equation 16), plus D times `x`.

    Args:
        weights: of m blocks.
        x: (length, m, heads, headdim, n).
        dt: step sizes, (length, m, heads, n).
        B: input projections, (length, m, d_state, n).
        C: output projections, (length, m, d_state, n).
    """
    log_decay, rows = torch.cumsum(dt * weights.rate, dim=0), []
    for t in range(len(x)):
        affinity = (C[t] * B[: t + 1]).sum(dim=2, keepdim=True)
        attention = affinity * torch.exp(log_decay[t] - log_decay[: t + 1]) * dt[: t + 1]
        y = (attention[t] + weights.skip)[:, :, None] * x[t]
        for s in range(t):
            y = torch.addcmul(y, attention[s, :, :, None], x[s])
        rows.append(y)
    return torch.stack(rows)


def native_available(device: torch.device | str) -> bool:
    """Tell whether `mamba_ssm`'s own CUDA kernels can serve `device`."""
    return torch.device(device).type == "cuda" and importlib.util.find_spec("mamba_ssm") is not None


def make_block(device: torch.device | str, d_model: int) -> nn.Module:
    """Build `mamba_ssm.Mamba2` on CUDA where that package is installed, else the torch block."""
    block = Mamba2(d_model)
    if not native_available(device):
        return block.to(device)
    from mamba_ssm import Mamba2 as NativeMamba2

    native = NativeMamba2(
        d_model,
        d_state=block.d_state,
        d_conv=block.d_conv,
        expand=block.d_inner // d_model,
        headdim=block.headdim,
        device=device,
    )
    native.load_state_dict(block.state_dict())
    return native
