"""TabM (Gorishniy et al. 2025, "TabM") with piecewise-linear embeddings, behind `fit`."""

from copy import deepcopy
from typing import Self

import numpy as np
import torch
from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins
from sklearn.model_selection import train_test_split
from tabm import TabM
from torch import Tensor
from torch.nn import functional as F

from common.randomness import torch_seed

BATCH = 256
VALIDATION_SHARE = 0.2
GRADIENT_NORM = 1.0


class TabMClassifier:
    """TabM with its authors' settings, but narrower, so that it trains on one CPU thread.

    Cross-entropy of each member, AdamW, and early stopping on the log-loss of a stratified fifth
    of the training rows, after which the best weights are restored.

    Args:
        k: members (the authors' default is 32).
        d_block: width of the two hidden layers (the authors' default is 512).
        n_bins: piecewise-linear bins a column.
        d_embedding: width of a column's embedding.
        epochs: at most.
        patience: epochs without a better log-loss before training stops.
        random_state: seed of split, weights, batches and dropout.
    """

    def __init__(
        self,
        k: int = 16,
        d_block: int = 128,
        n_bins: int = 48,
        d_embedding: int = 16,
        epochs: int = 100,
        patience: int = 16,
        random_state: int = 0,
    ) -> None:
        self.k, self.d_block, self.n_bins, self.d_embedding = k, d_block, n_bins, d_embedding
        self.epochs, self.patience, self.random_state = epochs, patience, random_state

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from standardised rows, float (n, d), and labels, int (n,) in {0, 1}."""
        kept, held_out = split_rows(y, self.random_state)
        self.varying_ = np.flatnonzero(np.ptp(X[kept].astype(np.float32), axis=0) > 0)
        rows, labels = self._rows(X), torch.as_tensor(y)
        train, validation = ((rows[part], labels[part]) for part in (kept, held_out))
        with torch_seed(self.random_state) as generator:
            self.model_ = self._build(train[0])
            self._train(train, validation, generator)
        self.model_.eval()
        return self

    def _rows(self, X: np.ndarray) -> Tensor:
        return torch.as_tensor(X[:, self.varying_], dtype=torch.float32)

    def _build(self, rows: Tensor) -> TabM:
        bins = compute_bins(rows, n_bins=min(self.n_bins, len(rows) - 1))
        embeddings = PiecewiseLinearEmbeddings(
            bins, self.d_embedding, activation=False, version="B"
        )
        return TabM.make(
            n_num_features=rows.shape[1],
            d_out=2,
            num_embeddings=embeddings,
            k=self.k,
            d_block=self.d_block,
        )

    def _train(
        self,
        train: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        generator: torch.Generator,
    ) -> None:
        rows, labels = train
        optimizer = torch.optim.AdamW(self.model_.parameters(), lr=2e-3, weight_decay=3e-4)
        best, best_loss, waited = None, float("inf"), 0
        for _ in range(self.epochs):
            self.model_.train()
            for batch in torch.randperm(len(rows), generator=generator).split(BATCH):
                logits = self.model_(rows[batch])
                loss = F.cross_entropy(
                    logits.flatten(0, 1), labels[batch].repeat_interleave(self.k)
                )
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model_.parameters(), GRADIENT_NORM)
                optimizer.step()
            probability = self._probability(validation[0])
            held_out_loss = float(F.nll_loss(probability.clamp(min=1e-7).log(), validation[1]))
            waited += 1
            if held_out_loss < best_loss:
                best, best_loss, waited = deepcopy(self.model_.state_dict()), held_out_loss, 0
            if waited > self.patience:
                break
        self.model_.load_state_dict(best)

    @torch.inference_mode()
    def _probability(self, rows: Tensor) -> Tensor:
        """Mean of the members' class probabilities, float32 (n, 2)."""
        self.model_.eval()
        batches = [self.model_(batch).softmax(dim=2).mean(dim=1) for batch in rows.split(1024)]
        return torch.cat(batches)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the log-odds of the mean probability, float64 (n,)."""
        return torch.logit(self._probability(self._rows(X))[:, 1].double(), eps=1e-12).numpy()


def split_rows(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a fifth of the rows for validation, by class where each has more than one row."""
    rows = np.arange(len(y))
    stratify = y if np.bincount(y).min() > 1 else None
    kept, held_out = train_test_split(
        rows, test_size=VALIDATION_SHARE, stratify=stratify, random_state=seed
    )
    return kept, held_out
