"""KAN-based collaboration of small and large models: the method, without Ray or MLflow."""
