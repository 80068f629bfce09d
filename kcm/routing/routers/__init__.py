"""Routers: their inputs, the KAN head, monotone curves over a few signals, and how a fitted one is stored."""
