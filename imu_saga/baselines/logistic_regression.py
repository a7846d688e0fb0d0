"""Multinomial logistic regression on standardised hand features."""

from typing import Any

import numpy as np

from imu_saga.baseline import BASELINES, Baseline
from imu_saga.signal.features import window_features
from imu_saga.windows import WindowSet

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C tried, the inverse of the L2 penalty (ours)
UNTRIED = 0.1  # C where a class has a single window, so that nothing can be held out (ours)
FOLDS = 4  # at most (ours)
STEPS = 2000


@BASELINES.register("logistic_regression")
class LogisticRegression(Baseline):
    """Multinomial, L2, on standardised hand features; C by cross-validation inside the labels given."""

    def learn(self, windows: WindowSet) -> None:
        """Choose C by the log-likelihood of held-out windows, then fit on all."""
        from sklearn.linear_model import LogisticRegression as Logistic  # noqa: PLC0415  (slow to import)
        from sklearn.model_selection import GridSearchCV, StratifiedKFold  # noqa: PLC0415
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        features = window_features(windows.x, windows.rate_hz, windows.channels)
        folds = min(FOLDS, int(np.bincount(windows.labels)[self.seen].min()))
        self.model: Any = make_pipeline(StandardScaler(), Logistic(C=UNTRIED, max_iter=STEPS, tol=1e-3))
        if folds > 1:
            held_out = StratifiedKFold(folds, shuffle=True, random_state=self.seed)
            choices = {"logisticregression__C": STRENGTHS}
            self.model = GridSearchCV(self.model, choices, scoring="neg_log_loss", cv=held_out)
        self.model.fit(features, windows.labels)

    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the softmax of the linear scores."""
        return self.model.predict_proba(window_features(windows.x, windows.rate_hz, windows.channels))
