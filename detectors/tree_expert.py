"""Boosted-tree experts: CatBoost's oblivious trees, held and evaluated as torch buffers."""

import json
import tempfile
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from catboost import CatBoost, CatBoostClassifier, sum_models
from torch import Tensor, nn

from detectors.base import relative_weights

DEPTH = 6
BORDERS = 64  # of a column at most: trees then share more questions
ENSEMBLES = 10  # that `boost_briefly` returns the mean of

Grow = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], CatBoost]


class TreeExperts(nn.Module):
    """Logits of experts of gradient-boosted oblivious trees (Prokhorenkova et al. 2018).

    CatBoost grows the trees; here they are plain tensors, so that they are saved, moved, exported
    and scored with the network around them. All trees ask one question a level, hence a row's leaf
    is the number whose bits are the answers. Trees share questions, whatever their expert; each
    is asked once. The logits are piecewise constant: no gradient.
    """

    column: Tensor
    border: Tensor
    leaf: Tensor
    bias: Tensor
    asked_column: Tensor
    asked_border: Tensor
    question: Tensor

    def __init__(self, *n_trees: int) -> None:
        super().__init__()
        self.ends = [0, *accumulate(n_trees)]
        self.register_buffer("column", torch.zeros(DEPTH, self.ends[-1], dtype=torch.int64))
        self.register_buffer("border", torch.full((DEPTH, self.ends[-1]), torch.inf))
        self.register_buffer("leaf", torch.zeros(self.ends[-1], 2**DEPTH))
        self.register_buffer("bias", torch.zeros(len(n_trees)))
        for name in ("asked_column", "asked_border", "question"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.find_questions()
        self.register_load_state_dict_post_hook(TreeExperts.find_questions)

    def find_questions(self, _: object = None) -> None:
        """List the different questions, and for each level and tree the number of its own.

        Trees after the last one that has anything to say are left out.
        """
        speaking = self.leaf.any(dim=1).nonzero()
        last = int(speaking.max()) + 1 if len(speaking) else 1
        column, border = self.column[:, :last].flatten(), self.border[:, :last].flatten()
        asked = torch.stack([column.double(), border.double()])
        (column, border), number = asked.unique(dim=1, return_inverse=True)
        self.asked_column, self.asked_border = column.long(), border.float()
        self.question = number.view(DEPTH, last)

    def fit(
        self, number: int, rows: Tensor, y: np.ndarray, weight: np.ndarray, seed: int, grow: Grow
    ) -> Self:
        """Grow the trees of one expert.

        Where no column varies, nothing can be asked of a row and the logit is 0.

        Args:
            number: of the expert, from 0.
            rows: float32 (n, d).
            y: labels, int (n,).
            weight: float (n,).
            seed: of the booster.
            grow: `boost` or `boost_briefly`.
        """
        trees = slice(*self.ends[number : number + 2])
        self.column[:, trees], self.border[:, trees] = 0, torch.inf
        self.leaf[trees], self.bias[number] = 0, 0
        if rows.std(dim=0).any():
            data = rows.cpu().numpy(), y, relative_weights(y, weight)
            self._take(number, trees, as_json(grow(*data, trees.stop - trees.start, seed)))
        self.find_questions()
        return self

    def _take(self, number: int, trees: slice, model: dict[str, Any]) -> None:
        scale, (bias,) = model["scale_and_bias"]
        self.bias[number] = bias
        for index, tree in enumerate(model["oblivious_trees"], start=trees.start):
            values = torch.tensor(tree["leaf_values"])
            self.leaf[index, : len(values)] = scale * values
            for level, split in enumerate(tree["splits"] or []):
                self.column[level, index] = split["float_feature_index"]
                self.border[level, index] = split["border"]

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits, float32 (n, number of experts), of rows, float32 (n, d)."""
        columns = rows.detach().T.contiguous()
        asked = columns.index_select(0, self.asked_column)
        answers = asked.gt_(self.asked_border[:, None]).bool().view(torch.uint8)  # faster than >
        leaf = answers.index_select(0, self.question[0])
        for level, question in enumerate(self.question[1:], start=1):
            leaf.add_(answers.index_select(0, question), alpha=1 << level)
        values = self.leaf.gather(1, leaf.long())
        sums = [values[start:end].sum(dim=0) for start, end in pairwise(self.ends)]
        return torch.stack(sums, dim=1) + self.bias


def boost(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    n_trees: int,
    seed: int,
    column_share: float = 0.3,
    learning_rate: float | None = None,
) -> CatBoostClassifier:
    """Boost trees on rows, float (n, d), with labels, int (n,), and weights, float (n,).

    A split is chosen from a share of the columns: few labels, many columns. Without a learning
    rate, CatBoost chooses its own.
    """
    booster = CatBoostClassifier(
        iterations=n_trees,
        depth=DEPTH,
        border_count=BORDERS,
        rsm=column_share,
        learning_rate=learning_rate,
        random_seed=seed,
        thread_count=torch.get_num_threads(),
        verbose=False,
        allow_writing_files=False,
    )
    return booster.fit(X, y, sample_weight=weight)


def boost_briefly(
    X: np.ndarray, y: np.ndarray, weight: np.ndarray, n_trees: int, seed: int
) -> CatBoost:
    """Return the mean of ten ensembles of `n_trees` trees together; arguments as in `boost`.

    Trees that correct each other go on where the first ones led, and few anomalies leave that to
    chance. Short ensembles begin anew, and learn fast enough to get there in few trees.
    """
    sizes = [len(part) for part in np.array_split(range(n_trees), min(ENSEMBLES, n_trees))]
    seeds = np.random.default_rng(seed).integers(2**31, size=len(sizes)).tolist()
    ensembles = [
        boost(X, y, weight, size, each, column_share=0.2, learning_rate=0.5)
        for size, each in zip(sizes, seeds, strict=True)
    ]
    return sum_models(ensembles, weights=[1 / len(sizes)] * len(sizes))


def as_json(booster: CatBoost) -> dict[str, Any]:
    """Return a fitted model as CatBoost's own JSON describes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        booster.save_model(str(path), format="json")
        return json.loads(path.read_text(encoding="utf-8"))
