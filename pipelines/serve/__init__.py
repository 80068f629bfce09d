"""The cascade behind HTTP: a door that holds the collaborator, and a large model with its own replicas and queue."""
