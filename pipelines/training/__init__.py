"""Code of Ray Train workers and Ray Tune trials."""
