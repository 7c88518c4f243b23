"""Two tasks from one table in scikit-learn: mixed columns, missing labels, a search, importance."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, train_test_split

from mtl_tabular.estimators import MultiTaskEstimator
from mtl_tabular.importance import permutation_importance
from mtl_tabular.visualize import draw_importance


def make_table(rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Customers, whether they bought, and what they spent; half of the amounts are unknown."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "age": rng.uniform(18, 80, rows),
            "visits": rng.poisson(3, rows).astype(float),
            "city": rng.choice(["Lyon", "Oslo", "Rome"], rows),
            "noise": rng.normal(size=rows),
        }
    )
    X.loc[rng.random(rows) < 0.1, "age"] = np.nan
    wish = 0.6 * (X["visits"] - 3) + (X["city"] == "Oslo") + rng.normal(0, 0.5, rows)
    spent = 40 + 12 * X["visits"] + 0.5 * X["age"].fillna(49) + rng.normal(0, 5, rows)
    y = pd.DataFrame({"bought": np.where(wish > 0.3, "yes", "no"), "euros": spent})
    y.loc[rng.random(rows) < 0.5, "euros"] = np.nan
    return X, y


def main(rows: int, epochs: int, folder: Path) -> None:
    """Search, score on held-out rows, and draw what matters to which task."""
    X, y = make_table(rows)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    search = GridSearchCV(
        MultiTaskEstimator(max_epochs=epochs, random_state=0),
        {"network": ["shared_bottom", "multitab"], "learning_rate": [3e-3, 1e-2]},
        cv=2,
    ).fit(X_train, y_train)
    model = search.best_estimator_
    print("best:", search.best_params_)
    print(f"mean of AUROC and explained variance: {model.score(X_test, y_test):.3f}")
    print(model.predict(X_test).head(3))
    importance = permutation_importance(model, X_test, y_test, repeats=5)
    print(importance.round(3).to_string())
    draw_importance(importance, file=folder / "importance.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path())
    main(**vars(parser.parse_args()))
