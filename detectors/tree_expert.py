"""Boosted-tree experts: CatBoost's oblivious trees, held and evaluated as torch buffers."""

import json
import tempfile
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from catboost import CatBoostClassifier
from torch import Tensor, nn

from detectors.base import relative_weights

DEPTH = 6
COLUMN_SHARE = 0.3  # of the columns that a split is chosen from: few labels, many columns
BORDERS = 64  # of a column at most: trees then share more questions


class TreeExperts(nn.Module):
    """Logits of ensembles of gradient-boosted oblivious trees (Prokhorenkova et al. 2018).

    CatBoost grows the trees; here they are plain tensors, so that they are saved, moved, exported
    and scored with the network around them. All trees ask one question a level, hence a row's leaf
    is the number whose bits are the answers. Trees share questions, whatever their ensemble; each
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

    def fit(self, number: int, rows: Tensor, y: np.ndarray, weight: np.ndarray, seed: int) -> Self:
        """Boost the trees of one ensemble.

        Where no column varies, nothing can be asked of a row and the logit is 0.

        Args:
            number: of the ensemble, from 0.
            rows: float32 (n, d).
            y: labels, int (n,).
            weight: float (n,).
            seed: of the booster.
        """
        trees = slice(*self.ends[number : number + 2])
        self.column[:, trees], self.border[:, trees] = 0, torch.inf
        self.leaf[trees], self.bias[number] = 0, 0
        if rows.std(dim=0).any():
            booster = make_booster(trees.stop - trees.start, seed)
            booster.fit(rows.cpu().numpy(), y, sample_weight=relative_weights(y, weight))
            self._take(number, trees, as_json(booster))
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
        """Return logits, float32 (n, number of ensembles), of rows, float32 (n, d)."""
        columns = rows.detach().T.contiguous()
        asked = columns.index_select(0, self.asked_column)
        answers = asked.gt_(self.asked_border[:, None]).bool().view(torch.uint8)  # faster than >
        leaf = answers.index_select(0, self.question[0])
        for level, question in enumerate(self.question[1:], start=1):
            leaf.add_(answers.index_select(0, question), alpha=1 << level)
        values = self.leaf.gather(1, leaf.long())
        sums = [values[start:end].sum(dim=0) for start, end in pairwise(self.ends)]
        return torch.stack(sums, dim=1) + self.bias


def make_booster(n_trees: int, seed: int) -> CatBoostClassifier:
    """Return an unfitted CatBoost model of `n_trees` trees."""
    return CatBoostClassifier(
        iterations=n_trees,
        depth=DEPTH,
        border_count=BORDERS,
        rsm=COLUMN_SHARE,
        random_seed=seed,
        thread_count=torch.get_num_threads(),
        verbose=False,
        allow_writing_files=False,
    )


def as_json(booster: CatBoostClassifier) -> dict[str, Any]:
    """Return a fitted model as CatBoost's own JSON describes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        booster.save_model(str(path), format="json")
        return json.loads(path.read_text(encoding="utf-8"))
