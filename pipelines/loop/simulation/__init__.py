"""A simulation of the loop on a table before anything is live."""
