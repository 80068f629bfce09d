"""What the page says: numbers as people read them, how a result is read, sentences, and the names of metrics."""
