"""What is computed from completions: latency, GRACE, statistics, the report."""
