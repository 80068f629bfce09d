"""What is remembered of answers: decisions, feedback, audits."""
