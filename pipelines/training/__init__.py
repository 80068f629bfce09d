"""What Ray Train workers and Ray Tune trials run."""
