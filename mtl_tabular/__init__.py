"""Multi-task learning on tables: tasks, networks, data and scikit-learn estimators."""
