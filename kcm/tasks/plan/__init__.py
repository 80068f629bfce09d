"""What is drawn for a task sequence: which labels and rows make which task, the splits, and how many rows are kept."""
