"""The flagship: a sparse mixture of Mamba-2 experts over a short sequence of feature tokens."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from common.files import read_json, write_json
from common.randomness import torch_seed
from common.scaling import RowScaler
from common.weights import load_weights, save_weights
from detectors.base import Detector
from detectors.mamba2 import make_block
from detectors.memory import CAPACITY, Memory
from detectors.preprocessing import PiecewiseLinearEncoding

BATCH = 128
SCORING_BATCH = 8192
N_HEADS = 2
KNOWN, NOVEL = range(N_HEADS)
NOVEL_HEAD_WEIGHT = 0.25
MIN_EXPERTS, MAX_EXPERTS = 4, 16


class Expert(nn.Module):
    """Feature tokens, pre-norm residual Mamba-2 blocks and a linear head.

    Encoded rows, float32 (n, m), become `n_tokens` tokens of width `d_model` and two logits.
    """

    def __init__(
        self, n_inputs: int, n_tokens: int, d_model: int, depth: int, device: torch.device
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.tokenizer = nn.Linear(n_inputs, n_tokens * d_model)
        self.norms = nn.ModuleList(nn.RMSNorm(d_model) for _ in range(depth))
        self.blocks = nn.ModuleList(make_block(device, d_model=d_model) for _ in range(depth))
        self.head = nn.Linear(d_model, N_HEADS)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return the logits of known and of novel anomaly, (n, 2), read off the mean token."""
        tokens = self.tokenizer(encoded).unflatten(1, (-1, self.d_model))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            tokens = tokens + block(norm(tokens))
        return self.head(tokens.mean(dim=1))


class NoisyTopKRouter(nn.Module):
    """Noisy top-k gating with a load-balancing loss (Shazeer et al. 2017, section 2.1 and 4)."""

    def __init__(self, n_inputs: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(n_inputs, n_experts)
        self.noise = nn.Linear(n_inputs, n_experts)
        nn.init.zeros_(self.noise.weight)
        self.top_k = top_k

    def forward(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return gates, (n, E) with `top_k` non-zero entries a row, and the balance loss.

        Noise is added only where a `generator` is given.
        """
        logits = self.gate(x)
        if generator is not None:
            scale = F.softplus(self.noise(x))
            logits = logits + scale * torch.randn(logits.shape, generator=generator)
        values, chosen = logits.topk(self.top_k, dim=1)
        gates = torch.zeros_like(logits).scatter(1, chosen, values.softmax(dim=1))
        importance = logits.softmax(dim=1).mean(dim=0)
        return gates, importance.var(correction=0) / importance.mean().square()


class MambaMoE(nn.Module):
    """Preprocessing, router and sparse Mamba experts, beside two experts that see every row.

    Each Mamba expert has two logits: `known` parts labelled anomalies from the rest, `novel` parts
    synthetic ones from the rest. A few real anomalies thus keep their say among thousands of
    synthetic ones, while both shape the same tokens and blocks. The two others are linear, for
    known anomalies, and a memory of normal rows, for novel ones: members that err differently.
    """

    novelty_share: Tensor
    offset: Tensor

    def __init__(
        self,
        n_features: int,
        n_bins: int,
        n_tokens: int,
        d_model: int,
        depth: int,
        n_experts: int,
        top_k: int,
        memory_rows: int,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.encoding = PiecewiseLinearEncoding(n_features, n_bins)
        n_inputs = self.encoding.n_outputs
        self.router = NoisyTopKRouter(n_inputs, n_experts, top_k)
        self.experts = nn.ModuleList(
            Expert(n_inputs, n_tokens, d_model, depth, device) for _ in range(n_experts)
        )
        self.linear = nn.Linear(n_inputs, 1)
        self.memory = Memory(memory_rows, n_features)
        self.register_buffer("novelty_share", torch.zeros(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        """Return the log-odds of anomaly, float32 (n,), of rows in the input's units, (n, d).

        A row is normal if all parts agree that it is (a noisy or): its log-probability of being
        normal is the sum of theirs, those of novelty weighted by `novelty_share`. `offset` moves
        the log-odds so that a share of the training rows labelled 0, `contamination`, is above 0.
        """
        encoded = self.encoding(X)
        mixed = torch.zeros(len(encoded), N_HEADS, device=encoded.device)
        for routed, gate, logits in self.route(encoded, None)[0]:
            mixed = mixed.index_add(0, routed, gate[:, None] * logits)
        novelty = F.softplus(self.memory(encoded[:, : X.shape[1]]))
        novelty = novelty + NOVEL_HEAD_WEIGHT * F.softplus(mixed[:, NOVEL])
        known = F.softplus(mixed[:, KNOWN]) + F.softplus(self.linear(encoded)[:, 0])
        surprise = (known + self.novelty_share * novelty).clamp(min=1e-30)
        return surprise + torch.log(-torch.expm1(-surprise)) - self.offset

    @torch.no_grad()
    def calibrate(self, normals: Tensor, contamination: float) -> None:
        """Set the offset from training rows labelled 0, float64 (n, d) in the input's units."""
        scores = torch.cat([self(batch) for batch in normals.split(SCORING_BATCH)])
        self.offset += scores.double().quantile(1 - contamination).float()

    def route(
        self, encoded: Tensor, generator: torch.Generator | None
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
        """Send encoded rows, (n, m), to their experts.

        Returns:
            for each expert with rows: their numbers (r,), gates (r,) and logits (r, 2); the
            router's balance loss.
        """
        gates, balance = self.router(encoded, generator)
        parts = []
        for index, expert in enumerate(self.experts):
            routed = gates[:, index].nonzero().squeeze(1)
            if len(routed):
                parts.append((routed, gates[routed, index], expert(encoded[routed])))
        return parts, balance

    def loss(self, batches: list[Tensor], generator: torch.Generator) -> Tensor:
        """Cross-entropy of every expert, weighted by its gates (Jacobs et al. 1991).

        Experts answer for themselves and not for their mixture, so that they stay an ensemble.

        Args:
            batches: encoded normal, known and, if any, synthetic rows, each float32 (m, n_inputs).
            generator: of the routing noise.
        """
        encoded, m = torch.cat(batches), len(batches[0])
        kind = torch.arange(len(batches), device=encoded.device).repeat_interleave(m)
        targets = torch.stack([kind == 1, kind == 2], dim=1).float()
        counted = torch.stack([kind != 2, kind != 1], dim=1).float()
        if len(batches) == 2:
            counted[:, NOVEL] = 0
        parts, balance = self.route(encoded, generator)
        linear = self.linear(encoded[: 2 * m])[:, 0]
        loss = F.binary_cross_entropy_with_logits(linear, targets[: 2 * m, KNOWN]) + 0.01 * balance
        for routed, gate, logits in parts:
            weight = gate[:, None] * counted[routed] / (2 * m)
            errors = F.binary_cross_entropy_with_logits(logits, targets[routed], reduction="none")
            loss = loss + (weight * errors).sum()
        return loss


class MambaMoEDetector(Detector):
    """Mixture of Mamba-2 experts, trained on weighted draws of the rows with cross-entropy.

    Args:
        n_experts: number of experts; None chooses it from the data (`suggest_n_experts`).
        top_k: experts that score a row.
        d_model: width of a token.
        depth: Mamba-2 blocks in an expert.
        n_tokens: length of the token sequence.
        n_bins: piecewise-linear bins a column.
        steps: AdamW steps of `fit`; `partial_fit` takes half as many.
        learning_rate: AdamW's peak learning rate.
        contamination: share of the training rows labelled 0 that score above `threshold_`.
        random_state: seed of weights, batches and routing noise.
        device: torch device.
        progress: show a progress bar.
    """

    def __init__(
        self,
        n_experts: int | None = None,
        top_k: int = 4,
        d_model: int = 32,
        depth: int = 1,
        n_tokens: int = 4,
        n_bins: int = 16,
        steps: int = 100,
        learning_rate: float = 3e-3,
        contamination: float = 0.1,
        random_state: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        self.n_experts = n_experts
        self.top_k = top_k
        self.d_model = d_model
        self.depth = depth
        self.n_tokens = n_tokens
        self.n_bins = n_bins
        self.steps = steps
        self.learning_rate = learning_rate
        self.contamination = contamination
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        self.n_experts_ = self.n_experts or suggest_n_experts(X[~synthetic])
        with torch_seed(self.random_state) as generator:
            self.memory_rows_ = min(int((y == 0).sum()), CAPACITY)
            self.network_ = self._build()
            self.network_.encoding.fit(X[~synthetic])
            scaler = self.network_.encoding.scaler
            known = X[(y == 1) & ~synthetic]
            self.network_.memory.fit(scaler(X[y == 0]), scaler(known), generator)
            self._train(X, y, weight, synthetic, self.steps, generator)

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        with torch_seed(self.random_state + 1) as generator:
            self._train(X, y, weight, synthetic, self.steps // 2, generator)

    def _build(self) -> MambaMoE:
        device = torch.device(self.device)
        return MambaMoE(
            self.n_features_in_,
            self.n_bins,
            self.n_tokens,
            self.d_model,
            self.depth,
            self.n_experts_,
            min(self.top_k, self.n_experts_),
            self.memory_rows_,
            device,
        ).to(device)

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        synthetic: np.ndarray,
        steps: int,
        generator: torch.Generator,
    ) -> None:
        network = self.network_.train()
        kinds = [y == 0, (y == 1) & ~synthetic, (y == 1) & synthetic]
        pools = [(network.encoding(X[kind]), torch.from_numpy(weight[kind])) for kind in kinds]
        if synthetic.any():
            network.novelty_share.fill_(min(1.0, weight[kinds[2]].sum() / weight[kinds[1]].sum()))
            network.memory.calibrate(network.encoding.scaler(X[synthetic]))
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, steps)
        bar = tqdm(range(steps), "mamba-moe", unit="step", disable=not self.progress)
        for step in bar:
            batches = [
                rows[torch.multinomial(odds, BATCH, replacement=True, generator=generator)]
                for rows, odds in pools
                if len(rows)
            ]
            loss = network.loss(batches, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
        network.eval().calibrate(torch.from_numpy(X[y == 0]), self.contamination)

    def log_odds(self, X: Tensor) -> Tensor:
        """Return the differentiable log-odds, float32 (n,), of rows, float (n, d)."""
        return self.network_(X)

    @torch.inference_mode()
    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        batches = torch.from_numpy(X).split(SCORING_BATCH)
        return torch.cat([self.network_(batch) for batch in batches]).double().cpu().numpy()

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and `weights.safetensors`."""
        names = ("n_experts_", "n_features_in_", "memory_rows_")
        fitted = {name: getattr(self, name) for name in names}
        write_json(Path(folder) / "settings.json", {"params": self.get_params(), "fitted": fitted})
        save_weights(Path(folder) / "weights.safetensors", self.network_.state_dict())

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Rebuild the network and read its weights."""
        settings = read_json(Path(folder) / "settings.json")
        detector = cls(**settings["params"])
        for name, value in settings["fitted"].items():
            setattr(detector, name, value)
        detector.classes_, detector.threshold_ = np.array([0, 1]), 0.0
        detector.network_ = detector._build()
        detector.network_.load_state_dict(load_weights(Path(folder) / "weights.safetensors"))
        detector.network_.eval()
        return detector


def suggest_n_experts(X: np.ndarray) -> int:
    """Choose 4, 8 or 16 experts from the complexity of the rows `X`, float (n, d).

    Complexity is the participation ratio of the correlation matrix's eigenvalues, the effective
    number of independent columns; an expert is given for each of them.
    """
    scaled = RowScaler(X.shape[1]).fit(X)(X).double().numpy()
    columns = scaled[:, scaled.std(axis=0) > 1e-6]
    if columns.shape[1] < 2:
        return MIN_EXPERTS
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(columns, rowvar=False)).clip(min=0)
    effective = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    return int(np.clip(2 ** np.round(np.log2(effective)), MIN_EXPERTS, MAX_EXPERTS))
