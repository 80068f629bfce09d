"""What a model sees of a row: its content, its pictures, its label."""
