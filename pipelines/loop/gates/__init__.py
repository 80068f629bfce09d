"""What a challenger must prove before it is promoted, and the labels that this takes."""
