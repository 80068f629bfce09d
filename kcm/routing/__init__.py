"""Routing on a table with recorded answers of two models; neither model is trained."""
