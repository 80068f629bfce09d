"""The command line, job submission and the configurations."""
