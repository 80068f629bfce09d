"""Routing on a table of answers that two models have already given, without training either of them."""
