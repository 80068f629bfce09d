"""The method on Ray: one module per stage."""
