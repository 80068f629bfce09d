"""The commands of `kcm`; the `cli.py` of a folder holds its options and output."""
