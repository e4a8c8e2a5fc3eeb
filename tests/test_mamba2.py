"""The torch Mamba-2 block against values computed by the mamba-ssm package itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.randomness import torch_seed
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
