"""Judge and small model over the same features: their networks, their inputs, their losses."""
