"""The commands of `kcm`: what each does, and in `cli.py` of its folder how it is called and what it prints."""
