"""Figures and one self-contained HTML page about a run; needs no network, no script and no server."""
