"""scikit-learn's random forest as a detector backend; all that it needs is two methods."""

from sklearn.ensemble import RandomForestClassifier


class Forest:
    """Scores rows by the share of trees that call them anomalous."""

    def __init__(self, n_estimators: int = 100, random_state: int = 0) -> None:
        self.forest = RandomForestClassifier(n_estimators, random_state=random_state)

    def fit(self, X, y, sample_weight=None):
        self.forest.fit(X, y, sample_weight)
        return self

    def decision_function(self, X):
        return self.forest.predict_proba(X)[:, 1]
