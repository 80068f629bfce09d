"""What is recorded in MLflow of a run, and the outbox that waits out its outages."""
