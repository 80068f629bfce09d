"""What comes before a first run: its configuration and the assets."""
