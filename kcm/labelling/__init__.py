"""Labelling one finite table: a small model answers most rows, an oracle the rest, a certificate covers all."""
