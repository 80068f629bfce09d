"""The loop played on a table before anything is live: what is sent, who answers, and what comes of it."""
