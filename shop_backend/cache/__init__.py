"""What is read far more often than it changes: one value in the process, one in Redis, the truth in SQL."""
