"""The input of a model: content, pictures, labels."""
