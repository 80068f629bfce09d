"""How the log's tables have grown, revision by revision."""
