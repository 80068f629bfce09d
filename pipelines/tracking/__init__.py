"""What is recorded in MLflow of a run."""
