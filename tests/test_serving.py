"""The flagship as an ONNX model, and what scoring does to be quick."""

import builtins

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import detectors
from common.errors import InputError
from detectors.mamba_moe import MambaMoEDetector
from detectors.replay import replay_set

SHAPES = {
    "default": {},
    "one expert, two blocks": {"n_experts": 1, "d_model": 64, "depth": 2},
    "two experts of four": {"n_experts": 4, "top_k": 2},
    "three tokens, all experts": {"n_experts": 3, "top_k": 3, "n_tokens": 3},
}


@pytest.fixture(scope="module", params=[*SHAPES, "hardened"])
def flagship(request, rows) -> MambaMoEDetector:
    X, y = rows
    bank = 3 * X[y == 1][:20] if request.param == "hardened" else X[:0]
    sizes = SHAPES.get(request.param, {})
    detector = MambaMoEDetector(steps=20, n_trees=30, n_hardened_trees=20, **sizes)
    return detector.fit(*replay_set(X, y, bank, 0.3))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exported_scores_equal_torch(flagship, rows, tmp_path, dtype):
    path = tmp_path / "model.onnx"
    detectors.export_onnx(flagship, path, dtype)
    scorer = detectors.open_onnx(path)
    probes = np.random.default_rng(0).uniform(-6, 6, (300, 4)).astype(np.float32).astype(float)
    for part in (probes, probes[:1], probes[:7], rows[0].astype(np.float32).astype(float)):
        expected = flagship.decision_function(part)
        np.testing.assert_allclose(scorer.decision_function(part), expected, atol=1e-4)
        np.testing.assert_array_equal(scorer.predict(part), flagship.predict(part))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_exported_flagship_is_a_backend_whose_scores_stay_log_odds(rows, tmp_path):
    X, y = rows
    flagship = MambaMoEDetector(steps=20).fit(X, y)
    detectors.export_onnx(flagship, tmp_path / "model.onnx")
    backend = detectors.make(f"onnx:{tmp_path / 'model.onnx'}").fit(X, y)
    backend.save(tmp_path / "saved")
    again = detectors.load(f"onnx:{tmp_path / 'model.onnx'}", tmp_path / "saved")
    for scorer in (backend, again):
        np.testing.assert_allclose(
            scorer.decision_function(X), flagship.decision_function(X), atol=1e-4
        )


def test_what_cannot_be_exported_or_opened_is_one_sentence(rows, tmp_path, monkeypatch):
    flagship = MambaMoEDetector(steps=2, n_trees=2).fit(*rows)
    trees = detectors.make("extra-trees", n_estimators=5).fit(*rows)
    with pytest.raises(InputError, match="export mamba-moe or mamba, of a SwiftHydra with one"):
        detectors.export_onnx(trees, tmp_path / "model.onnx")
    with pytest.raises(NotFittedError):
        detectors.export_onnx(MambaMoEDetector(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="is a folder; name a file with the argument path"):
        detectors.export_onnx(flagship, tmp_path)
    with pytest.raises(InputError, match="float64 or float32"):
        detectors.export_onnx(flagship, tmp_path / "model.onnx", "float16")
    with pytest.raises(InputError, match="no ONNX file"):
        detectors.open_onnx(tmp_path / "model.onnx")
    imported = builtins.__import__

    def without_onnxscript(name, *arguments, **keywords):
        if name.partition(".")[0] in ("onnx", "onnxscript", "onnxruntime"):
            raise ImportError(name)
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_onnxscript)
    with pytest.raises(InputError, match="pip install"):
        detectors.export_onnx(flagship, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="pip install onnxruntime"):
        detectors.open_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 3, 3000])
def test_stacked_experts_answer_as_each_alone(rows, n):
    """Number 3 of the experts gets no row."""
    network = MambaMoEDetector(steps=5, n_experts=5, depth=2, n_trees=5).fit(*rows).network_
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(n, network.tokenizer.out_features, generator=generator)
    tokens.requires_grad_()
    gates = torch.rand(n, 2, generator=generator)
    first = torch.tensor([0, 1, 2, 4])[torch.randint(4, (n, 1), generator=generator)]
    chosen = torch.cat([first, (first == 0).long() * 4], dim=1)
    routed, gate, logits = network.route(tokens, gates, chosen)
    alone = torch.zeros(n, 2).index_add(0, routed, gate * logits)
    stacked = network.mamba(tokens, gates, chosen)
    torch.testing.assert_close(stacked, alone, atol=1e-5, rtol=1e-4)
    slopes = [torch.autograd.grad(logits.sum(), tokens)[0] for logits in (stacked, alone)]
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-4)


def test_rows_score_alike_whatever_the_batch(rows):
    """More rows than a block holds, so that blocks and routing are joined in order."""
    detector = MambaMoEDetector(steps=20, n_experts=4).fit(*rows)
    X = np.random.default_rng(0).uniform(-4, 4, (2500, 4))
    whole = detector.decision_function(X)
    shuffled = np.random.default_rng(1).permutation(len(X))
    np.testing.assert_allclose(detector.decision_function(X[shuffled]), whole[shuffled], atol=1e-4)
    np.testing.assert_allclose(
        detector.decision_function(X[2000:2003]), whole[2000:2003], atol=1e-4
    )


@pytest.mark.parametrize("kind", ["list", "float32", "read-only", "reversed", "data frame"])
def test_rows_of_any_kind_score_as_plain_ones(rows, kind):
    X = rows[0].astype(np.float32).astype(float)
    detector = MambaMoEDetector(steps=2, n_trees=5).fit(*rows)
    fixed = X.copy()
    fixed.flags.writeable = False
    given = {
        "list": X.tolist(),
        "float32": X.astype(np.float32),
        "read-only": fixed,
        "reversed": np.ascontiguousarray(X[::-1])[::-1],
        "data frame": pd.DataFrame(X),
    }[kind]
    np.testing.assert_allclose(
        detector.decision_function(given), detector.decision_function(X), atol=1e-6
    )
