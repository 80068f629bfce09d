"""What a large model is shown, and what is read from its replies."""
