"""From the rows of a source to the rows of tasks: cleaning, exchange by digest, splits, and checks by counts."""
