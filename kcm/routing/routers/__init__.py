"""Routers: their inputs, the KAN head, and how a fitted one is stored."""
