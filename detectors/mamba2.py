"""The Mamba-2 block (Dao & Gu 2024, "Transformers are SSMs", arXiv 2405.21060) in plain torch.

Parameter names and shapes are those of `mamba_ssm.Mamba2` with one group and no tensor
parallelism, so that a checkpoint of either loads in the other. The token sequences here are short
(2 to 8), so the state-space recurrence is computed in its quadratic "dual" form.
"""

import importlib.util
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedRMSNorm(nn.Module):
    """RMS norm of `x * silu(z)`, as `mamba_ssm`'s RMSNormGated with `norm_before_gate=False`."""

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalise over the last axis; `x` and `z` are (..., size)."""
        return F.rms_norm(x * F.silu(z), self.weight.shape, self.weight, self.eps)


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
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 16,
    ) -> None:
        super().__init__()
        self.d_state, self.d_conv, self.headdim = d_state, d_conv, headdim
        self.d_inner = expand * d_model
        if self.d_inner % headdim:
            raise ValueError(f"headdim {headdim} does not divide the inner width {self.d_inner}")
        self.nheads = self.d_inner // headdim
        conv_dim = self.d_inner + 2 * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + conv_dim + self.nheads, bias=False)
        self.conv1d = nn.Conv1d(conv_dim, conv_dim, d_conv, groups=conv_dim, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(torch.empty(self.nheads))
        self.A_log = nn.Parameter(torch.empty(self.nheads))
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = GatedRMSNorm(self.d_inner)
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
        batch, length, _ = u.shape
        z, xBC, dt = self.in_proj(u).split(
            [self.d_inner, self.d_inner + 2 * self.d_state, self.nheads], dim=-1
        )
        xBC = F.silu(self.convolve(xBC))
        x, B, C = xBC.split([self.d_inner, self.d_state, self.d_state], dim=-1)
        x = x.reshape(batch, length, self.nheads, self.headdim)
        y = self.dual_form(x, F.softplus(dt + self.dt_bias), B, C) + self.D[:, None] * x
        return self.out_proj(self.norm(y.reshape(batch, length, self.d_inner), z))

    def convolve(self, x: Tensor) -> Tensor:
        """Apply `conv1d` causally to (batch, length, channels), tap by tap.

        On a CPU and for short sequences this takes half the time of the grouped convolution.
        """
        length, taps = x.shape[1], self.conv1d.weight.squeeze(1).unbind(dim=1)
        padded = F.pad(x, (0, 0, len(taps) - 1, 0))
        y: Tensor = self.conv1d.bias  # type: ignore[assignment]
        for shift, tap in enumerate(taps):
            y = torch.addcmul(y, padded[:, shift : shift + length], tap)
        return y

    def dual_form(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """State-space output as masked attention (the paper's equation 16).

        Args:
            x: (batch, length, heads, headdim).
            dt: step sizes, (batch, length, heads).
            B: input projections, (batch, length, d_state).
            C: output projections, (batch, length, d_state).
        """
        log_decay = torch.cumsum(-dt * self.A_log.exp(), dim=1).transpose(1, 2)
        segment = log_decay[..., :, None] - log_decay[..., None, :]
        causal = torch.ones(segment.shape[-2:], dtype=torch.bool, device=x.device).tril()
        decay = segment.masked_fill(~causal, -torch.inf).exp()
        attention = (C @ B.transpose(1, 2))[:, None] * decay * dt.transpose(1, 2)[:, :, None, :]
        return (attention @ x.transpose(1, 2)).transpose(1, 2)


def native_available(device: torch.device | str) -> bool:
    """Tell whether `mamba_ssm`'s own CUDA kernels can serve `device`."""
    return torch.device(device).type == "cuda" and importlib.util.find_spec("mamba_ssm") is not None


def make_block(device: torch.device | str, **size: int) -> nn.Module:
    """Build `mamba_ssm.Mamba2` on CUDA where that package is installed, else the torch block."""
    block = Mamba2(**size)
    if not native_available(device):
        return block.to(device)
    from mamba_ssm import Mamba2 as NativeMamba2

    native = NativeMamba2(**size, device=device)
    native.load_state_dict(block.state_dict())
    return native
