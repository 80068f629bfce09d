"""What the log keeps beside decisions: payloads, drift, the inbox, versions and their monitors, heartbeats."""
