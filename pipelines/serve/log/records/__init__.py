"""What the log keeps beside decisions: payloads, drift, the inbox, versions and their monitors, signs of life."""
