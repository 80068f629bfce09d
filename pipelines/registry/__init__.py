"""The registry: the champion pointer, the promotion gates, and the models in MLflow."""
