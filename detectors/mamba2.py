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

EPSILON = 1e-5  # of the gated norm


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
        headdim: int = 8,
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
        """Map tokens `u`, float32 (length, d_model, batch), to the same shape.

        In this layout channels are split without a copy, and every elementwise step runs along the
        batch: on a CPU a third of the time of (batch, length, channels).
        """
        sizes = [self.d_inner, self.d_inner + 2 * self.d_state, self.nheads]
        z, xBC, dt = project(self.in_proj.weight, u).split(sizes, dim=1)
        xBC = F.silu(self.convolve(xBC))
        x, B, C = xBC.split([self.d_inner, self.d_state, self.d_state], dim=1)
        heads = x.unflatten(1, (self.nheads, self.headdim))
        y = self.dual_form(heads, F.softplus(dt + self.dt_bias[:, None]), B, C).flatten(1, 2)
        return self.project_out(y * F.silu(z))

    def project_out(self, y: Tensor) -> Tensor:
        """Apply `norm` and `out_proj` to gated channels: `mamba_ssm`'s RMSNormGated with
        `norm_before_gate=False`. The norm's weight is taken into the layer's, and what a token is
        scaled by is applied to the fewer channels that come out.
        """
        return project(self.out_proj.weight * self.norm.weight, y) * inverse_rms(y, EPSILON)

    def convolve(self, x: Tensor) -> Tensor:
        """Apply `conv1d` causally to (length, channels, batch), tap by tap."""
        taps = self.conv1d.weight.unbind(dim=2)[::-1]
        y = (x * taps[0]).add_(self.conv1d.bias[:, None])  # type: ignore[index]
        for shift in range(1, min(len(x), len(taps))):
            y[shift:].addcmul_(x[:-shift], taps[shift])
        return y

    def dual_form(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """State-space output as masked attention (the paper's equation 16), plus D times `x`.

        The loop is over the tokens that are attended to.

        Args:
            x: (length, heads, headdim, batch).
            dt: step sizes, (length, heads, batch).
            B: input projections, (length, d_state, batch).
            C: output projections, (length, d_state, batch).
        """
        log_decay = torch.cumsum(dt * -self.A_log.exp()[:, None], dim=0)
        skip = self.D[:, None]
        y: Tensor | None = None
        for x_s, dt_s, B_s, decayed in zip(x, dt, B, log_decay, strict=True):
            affinity = (C * B_s).sum(dim=1, keepdim=True)
            attention = affinity * torch.exp(log_decay - decayed) * dt_s
            attention[0] += skip
            if y is None:
                y = attention[:, :, None] * x_s
            else:
                y[-len(C) :].addcmul_(attention[:, :, None], x_s)
            C, log_decay = C[1:], log_decay[1:]
        assert y is not None
        return y


def project(weight: Tensor, x: Tensor) -> Tensor:
    """Apply a layer's `weight`, (m, channels), to `x`, (length, channels, batch)."""
    return torch.bmm(weight.expand(len(x), -1, -1), x)


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
