"""From a content to its answer: judged in batches, escalated where the judge is not sure."""
