"""Routers: their inputs, the KAN head, and the storage of a fitted router."""
