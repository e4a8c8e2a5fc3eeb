"""CatBoost on one thread: it would score on all cores, whatever it was made with."""

import numpy as np
from catboost import CatBoostClassifier


class OneThreadCatBoost(CatBoostClassifier):
    """`CatBoostClassifier` that scores on the threads that it trains on, one."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probabilities of both classes, float64 (n, 2)."""
        return super().predict_proba(X, thread_count=1)
