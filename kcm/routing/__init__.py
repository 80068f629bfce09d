"""Routing on a table of recorded answers of two models, without training either of them."""
