"""The torch Mamba-2 block against values computed by the mamba-ssm package itself."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.randomness import torch_seed
from detectors import mamba2
from detectors.mamba2 import Mamba2

GOLDEN = np.load(Path(__file__).parent / "data" / "mamba_ssm_golden.npz")


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_values_and_gradients_equal_the_packages(case):
    def golden(name):
        return torch.from_numpy(GOLDEN[f"mamba2.{case}.{name}"])

    d_model, d_state, d_conv, expand, headdim, length, batch = golden("cfg").tolist()
    block = Mamba2(d_model, d_state, d_conv, expand, headdim)
    names = [key.split(".p.")[1] for key in GOLDEN.files if key.startswith(f"mamba2.{case}.p.")]
    block.load_state_dict({name: golden(f"p.{name}") for name in names}, strict=True)

    x = golden("x").requires_grad_()
    y = block(x)
    y.backward(golden("gy"))

    assert y.shape == (batch, length, d_model)
    torch.testing.assert_close(y, golden("y"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad, golden("gx"), rtol=1e-4, atol=1e-5)
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(parameter.grad, golden(f"g.{name}"), rtol=1e-4, atol=2e-5)


def test_the_packages_own_block_is_built_with_the_same_sizes(monkeypatch):
    """`mamba_ssm.Mamba2` has other defaults; what runs on CUDA only is stood in for."""

    class NativeMamba2(Mamba2):
        def __init__(self, d_model, d_state=128, d_conv=4, expand=2, headdim=64, device=None):
            super().__init__(d_model, d_state, d_conv, expand, headdim)

    package = SimpleNamespace(Mamba2=NativeMamba2)
    monkeypatch.setitem(sys.modules, "mamba_ssm", package)
    monkeypatch.setattr(mamba2, "native_available", lambda device: True)
    block = mamba2.make_block("cpu", d_model=24)
    assert isinstance(block, NativeMamba2)
    assert (block.d_state, block.headdim) == (Mamba2(24).d_state, Mamba2(24).headdim)


def test_output_is_causal():
    with torch_seed(0):
        block = Mamba2(8)
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 3:] += 1
    before, after = block(tokens), block(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_indivisible_headdim_is_refused():
    with pytest.raises(ValueError, match="headdim"):
        Mamba2(8, headdim=5)
