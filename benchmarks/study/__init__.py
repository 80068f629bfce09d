"""Studies: networks and learners compared over seeds on one task sequence, in one process."""
