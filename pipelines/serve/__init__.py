"""The cascade behind HTTP: replicas that hold the collaborator, and a large model with its own replicas and queue."""
