"""A boosted-tree expert: CatBoost's oblivious trees, held and evaluated as torch buffers."""

import json
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from catboost import CatBoostClassifier
from torch import Tensor, nn

DEPTH = 6
COLUMN_SHARE = 0.3  # of the columns that a split is chosen from: few labels, many columns


class TreeExpert(nn.Module):
    """Logit of gradient-boosted oblivious trees (Prokhorenkova et al. 2018).

    CatBoost grows the trees; here they are plain tensors, so that they are saved, moved, exported
    and scored with the network around them. All trees ask one question a level, hence a row's leaf
    is the number whose bits are the answers. Trees share questions; each is asked once. The logit
    is piecewise constant: no gradient.
    """

    column: Tensor
    border: Tensor
    leaf: Tensor
    bias: Tensor
    asked_column: Tensor
    asked_border: Tensor
    question: Tensor

    def __init__(self, n_trees: int) -> None:
        super().__init__()
        self.register_buffer("column", torch.zeros(DEPTH, n_trees, dtype=torch.int64))
        self.register_buffer("border", torch.full((DEPTH, n_trees), torch.inf))
        self.register_buffer("leaf", torch.zeros(n_trees, 2**DEPTH))
        self.register_buffer("bias", torch.zeros(()))
        for name in ("asked_column", "asked_border", "question"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.find_questions()
        self.register_load_state_dict_post_hook(TreeExpert.find_questions)

    def find_questions(self, _: object = None) -> None:
        """List the different questions, and for each level and tree the number of its own."""
        asked = torch.stack([self.column.flatten().double(), self.border.flatten().double()])
        (column, border), number = asked.unique(dim=1, return_inverse=True)
        self.asked_column, self.asked_border = column.long(), border.float()
        self.question = number.view_as(self.column)

    def fit(self, rows: Tensor, y: np.ndarray, weight: np.ndarray, seed: int) -> Self:
        """Boost trees on `rows`, float32 (n, d), labels `y`, int (n,), and weights, float (n,).

        Where no column varies, nothing can be asked of a row and the logit is 0.
        """
        if not rows.std(dim=0).any():
            return self
        booster = make_booster(self.leaf.shape[0], seed)
        booster.fit(rows.cpu().numpy(), y, sample_weight=weight)
        self._take(as_json(booster))
        return self

    def _take(self, model: dict[str, Any]) -> None:
        self.border.fill_(torch.inf)
        self.leaf.zero_()
        for index, tree in enumerate(model["oblivious_trees"]):
            values = torch.tensor(tree["leaf_values"])
            self.leaf[index, : len(values)] = values
            for level, split in enumerate(tree["splits"] or []):
                self.column[level, index] = split["float_feature_index"]
                self.border[level, index] = split["border"]
        scale, (bias,) = model["scale_and_bias"]
        self.leaf.mul_(scale)
        self.bias.fill_(bias)
        self.find_questions()

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits, float32 (n,), of rows, float32 (n, d)."""
        columns = rows.detach().T.contiguous()
        asked = columns.index_select(0, self.asked_column)
        answers = asked.gt_(self.asked_border[:, None]).bool().view(torch.uint8)  # faster than >
        leaf = answers.index_select(0, self.question[0])
        for level, question in enumerate(self.question[1:], start=1):
            leaf.add_(answers.index_select(0, question), alpha=1 << level)
        return self.leaf.gather(1, leaf.long()).sum(dim=0) + self.bias


def make_booster(n_trees: int, seed: int) -> CatBoostClassifier:
    """Return an unfitted CatBoost model of `n_trees` trees."""
    return CatBoostClassifier(
        iterations=n_trees,
        depth=DEPTH,
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
