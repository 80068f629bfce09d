"""Regression in closed form: of single layers from streamed sums, and of rows with their left-out predictions."""
