"""From a content to its answer: judged in batches, escalated if the judge is not sure."""
