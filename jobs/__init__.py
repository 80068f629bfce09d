"""What a person starts: the command line, job submission and the configurations."""
