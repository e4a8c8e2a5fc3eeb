"""The flagship: a mixture of Mamba-2 experts and of others that err differently."""

import copy
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError, check_at_least, check_positive
from common.files import read_json, reading_saved, write_json
from common.plain_torch import plain_torch
from common.randomness import torch_seed
from common.scaling import RowScaler
from common.seeds import RandomState, as_seed
from common.tensors import load_tensors, save_tensors
from detectors.base import Detector, check_contamination, real_weights
from detectors.mamba2 import HEADDIM
from detectors.mixture import HARDENED_TREES, REAL_TREES, Mixture, Sizes
from detectors.neighbour_expert import opinions_of_known
from detectors.remembered import ROWS_AT_ONCE
from detectors.tree_expert import Grow, boost, boost_briefly

BATCH = 128
WEIGHT_DECAY = 1.0
MIN_EXPERTS, MAX_EXPERTS = 4, 8
LEARN_FROM_REAL = ("memory", "neighbours", "trees")  # parts of the network
FITTED = ("n_experts_", "n_features_in_", "n_normals_", "n_known_")


class TrainingRows(NamedTuple):
    """Scaled rows, float32 (n, d), and what remembered rows say of them, float32 (n, 3).

    With them go labels, weights, and which rows are synthetic, each (n,).
    """

    scaled: Tensor
    measures: Tensor
    y: np.ndarray
    weight: np.ndarray
    synthetic: np.ndarray

    @property
    def columns(self) -> Tensor:
        """What the trees learn from, float32 (n, d + 3); they shall not split rounding errors."""
        return torch.cat([self.scaled, self.measures.round(decimals=3)], dim=1)

    def real(self) -> "TrainingRows":
        """Return the real rows; known anomalies take over what the synthetic ones weigh."""
        real, weight = ~self.synthetic, real_weights(self.y, self.weight, self.synthetic)
        scaled, measures = self.scaled[real], self.measures[real]
        return TrainingRows(scaled, measures, self.y[real], weight, self.synthetic[real])


class OfReal(NamedTuple):
    """What learned from the real rows alone; retraining keeps it while they and the settings stay.

    `states` are those of the network's parts by their names. `own` is what is said of the rows
    themselves: the measures of normal ones, float32 (n, 3), and the neighbours' opinions of known
    anomalies, (m,).
    """

    states: dict[str, dict[str, Tensor]]
    own: tuple[Tensor, Tensor]


class MambaMoEDetector(Detector):
    """The mixture of `detectors.mixture`; its Mamba experts learn from weighted draws of the rows.

    Args:
        n_experts: number of experts; None chooses it from the data (`suggest_n_experts`).
        top_k: experts that score a row.
        d_model: width of a token.
        depth: Mamba-2 blocks in an expert.
        n_tokens: length of the token sequence.
        n_bins: piecewise-linear bins a column.
        n_trees: boosted trees on real rows, all of the ten short ensembles together.
        n_hardened_trees: boosted trees on real and synthetic rows.
        steps: AdamW steps of the Mamba experts.
        learning_rate: AdamW's peak learning rate.
        contamination: share of new rows labelled 0 that shall score above `threshold_`, as told by
            the training rows, of which none is measured against itself.
        random_state: seed of weights, batches and routing noise.
        device: torch device.
        progress: show a progress bar.
    """

    network_type = Mixture  # a subclass of the detector may name one of the network
    of_real_: OfReal

    def __init__(
        self,
        n_experts: int | None = None,
        top_k: int = 1,
        d_model: int = 16,
        depth: int = 1,
        n_tokens: int = 2,
        n_bins: int = 2,
        n_trees: int = 200,
        n_hardened_trees: int = 150,
        steps: int = 100,
        learning_rate: float = 3e-3,
        contamination: float = 0.1,
        random_state: RandomState = 0,
        device: str | torch.device = "cpu",
        progress: bool = False,
    ) -> None:
        self.n_experts = n_experts
        self.top_k = top_k
        self.d_model = d_model
        self.depth = depth
        self.n_tokens = n_tokens
        self.n_bins = n_bins
        self.n_trees = n_trees
        self.n_hardened_trees = n_hardened_trees
        self.steps = steps
        self.learning_rate = learning_rate
        self.contamination = contamination
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        self._check_settings()
        counts = ~synthetic & (weight > 0)
        self.n_experts_ = self.n_experts or suggest_n_experts(X[counts])
        self.n_normals_, self.n_known_ = np.bincount(y[counts]).tolist()
        with torch_seed(self.seed_) as generator:
            network = self.network_ = self._build().train()
            every = self._learn_real(X, y, weight, synthetic)
            found = synthetic & (y == 1)
            hardens = network.memory.trust and weight[found].any()
            rows = every if hardens else every.real()
            self._train_experts(rows, generator)
        network.eval()
        hardened = bool(rows.synthetic.any())
        if hardened:
            self._fit_trees(HARDENED_TREES, rows, grow=boost)
        network.weigh(self.n_normals_ + self.n_known_, hardened)
        normal = (rows.y == 0) & (rows.weight > 0)
        network.calibrate(rows.scaled[normal], rows.measures[normal], self.contamination)
        with torch.no_grad():
            opinions = network.opinions(every.scaled, every.measures)
            self.decision_scores_ = network.combine(opinions).double().cpu().numpy()

    def _check_settings(self) -> None:
        check_contamination(self.contamination)
        check_at_least(self, top_k=1, depth=1, n_tokens=1, n_bins=1, steps=1)
        check_at_least(self, n_trees=1, n_hardened_trees=1, d_model=1)
        if self.d_model % HEADDIM:
            raise InputError(f"d_model is {self.d_model}; give a multiple of {HEADDIM}.")
        check_positive("learning_rate", self.learning_rate)
        if self.n_experts is not None:
            check_at_least(self, n_experts=1)

    def _build(self) -> Mixture:
        device = find_device(self.device)
        sizes = Sizes(
            n_features=self.n_features_in_,
            n_bins=self.n_bins,
            n_tokens=self.n_tokens,
            d_model=self.d_model,
            depth=self.depth,
            n_experts=self.n_experts_,
            top_k=min(self.top_k, self.n_experts_),
            n_trees=self.n_trees,
            n_hardened_trees=self.n_hardened_trees,
            n_normals=self.n_normals_,
            n_known=self.n_known_,
        )
        return self.network_type(sizes, device).to(device)

    def _learn_real(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> TrainingRows:
        """Fit what learns from real rows alone, unless it did before; return all rows, measured."""
        network, counts = self.network_, ~synthetic & (weight > 0)
        normal, known = (y == 0) & counts, (y == 1) & counts
        scaled = network.encoding.fit(X[counts]).scaler(X)
        kept = self._knows_real(X, y, weight, synthetic)
        own = self._recall() if kept else self._fit_remembered(scaled[normal], scaled[known])
        measures = torch.cat([network.compare(batch) for batch in scaled.split(ROWS_AT_ONCE)])
        measures[normal], measures[known, 2] = own
        rows = TrainingRows(scaled, measures, y, weight, synthetic)
        if not kept:
            self._fit_trees(REAL_TREES, rows.real(), grow=boost_briefly)
            parts = {name: network.get_submodule(name).state_dict() for name in LEARN_FROM_REAL}
            self.of_real_ = OfReal(copy.deepcopy(parts), own)
        return rows

    def _recall(self) -> tuple[Tensor, Tensor]:
        """Take over what learned from the same real rows; return what it says of them."""
        for name, state in self.of_real_.states.items():
            self.network_.get_submodule(name).load_state_dict(state)
        return self.of_real_.own

    def _fit_remembered(self, normal: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Remember scaled rows, (n, d) and (m, d); return what is said of them, as in `OfReal`.

        No row is measured against itself.
        """
        network, choice = self.network_, torch.Generator().manual_seed(self.seed_)
        of_normals = network.memory.fit(normal, known, network.encoding.scaler.scale, choice)
        likeness = network.neighbours.fit(normal, known, choice)
        of_known = opinions_of_known(normal, known, choice)
        return torch.cat([of_normals, likeness[:, None]], dim=1), of_known

    def _fit_trees(self, number: int, rows: TrainingRows, grow: Grow) -> None:
        trees = self.network_.trees
        trees.fit(number, rows.columns, rows.y, rows.weight, seed=self.seed_, grow=grow)

    def _train_experts(self, rows: TrainingRows, generator: torch.Generator) -> None:
        kinds = [rows.y == 0, (rows.y == 1) & ~rows.synthetic, (rows.y == 1) & rows.synthetic]
        encoded = self.network_.encoding(rows.scaled, rows.measures)
        odds = [torch.from_numpy(rows.weight[kind]) for kind in kinds]
        pools = [(encoded[kind], weight) for kind, weight in zip(kinds, odds, strict=True)]
        synthetic_ratio = float(odds[2].sum() / odds[1].sum())
        steps = int(self.steps)  # torch's schedule takes no integer of NumPy's
        optimizer = torch.optim.AdamW(
            self.network_.parameters(), self.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, steps)
        bar = tqdm(range(steps), "mamba-moe", unit="step", disable=not self.progress)
        for step in bar:
            batches = [
                pool[torch.multinomial(weight, BATCH, replacement=True, generator=generator)]
                for pool, weight in pools
                if len(pool)
            ]
            loss = self.network_.loss(batches, synthetic_ratio, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")

    def _training_log_odds(self, X: np.ndarray) -> np.ndarray:
        """Return the scores that `_fit` kept, of which none measures a row against itself."""
        return self.decision_scores_

    def log_odds(self, X: Tensor) -> Tensor:
        """Return the differentiable log-odds, float32 (n,), of rows, float (n, d)."""
        return self.network_(X)

    @torch.inference_mode()
    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        batches = torch.from_numpy(np.ascontiguousarray(X)).split(ROWS_AT_ONCE)
        return torch.cat([self.network_(batch) for batch in batches]).double().cpu().numpy()

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and `weights.safetensors`."""
        check_is_fitted(self)
        fitted = {name: getattr(self, name) for name in FITTED}
        params = {**self.fitted_with_, "device": str(self.fitted_with_["device"])}
        settings = {"params": params, "fitted": fitted}
        write_json(Path(folder) / "settings.json", settings)
        save_tensors(Path(folder) / "weights.safetensors", self.network_.state_dict())

    @classmethod
    @plain_torch()
    def load(cls, folder: Path | str) -> Self:
        """Rebuild the network and read its weights, on the CPU where its device is not there.

        Raises:
            InputError: they belong to another version's network.
        """
        settings = read_json(Path(folder) / "settings.json")
        weights = load_tensors(Path(folder) / "weights.safetensors")
        with reading_saved(folder), torch_seed(0):  # of weights that are then replaced
            detector = cls(**settings["params"])
            detector._check_settings()
            for name in FITTED:
                setattr(detector, name, settings["fitted"][name])
            if not is_usable(detector.device):
                detector.device = "cpu"
            detector.network_ = detector._build()
            detector.network_.load_state_dict(weights)
        detector.classes_, detector.threshold_ = np.array([0, 1]), 0.0
        detector.seed_ = as_seed(detector.random_state)
        detector.fitted_with_ = detector._params_with_seed()
        detector.network_.eval()
        return detector


def is_usable(device: str | torch.device) -> bool:
    """Tell whether torch knows a device, can put float64 on it (not so on mps) and take it back."""
    try:
        torch.empty(1, dtype=torch.float64, device=torch.device(device)).cpu()
    except (AssertionError, RuntimeError, TypeError):
        return False
    return True


def find_device(name: str | torch.device) -> torch.device:
    """Return torch's device of that name; raise `InputError` where it cannot be used."""
    if not is_usable(name):
        raise InputError(f"The torch device {name!r} is not there, or has no float64; take cpu.")
    return torch.device(name)


def suggest_n_experts(X: np.ndarray) -> int:
    """Choose 4 or 8 experts from the complexity of the rows `X`, float (n, d).

    Complexity is the participation ratio of the correlation matrix's eigenvalues, the effective
    number of independent columns. There are 8 where it is nearer to 8 or more than to 4, on a
    logarithmic scale.
    """
    scaled = RowScaler(X.shape[1]).fit(X)(X).double().numpy()
    columns = scaled[:, scaled.std(axis=0) > 1e-6]
    if columns.shape[1] < 2:
        return MIN_EXPERTS
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(columns, rowvar=False)).clip(min=0)
    effective = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    return int(np.clip(2 ** np.round(np.log2(effective)), MIN_EXPERTS, MAX_EXPERTS))
