"""Components for kcm from outside of it, one of each family; `matching` has more."""
