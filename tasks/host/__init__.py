"""What one machine runs: all processes by one command, supervised, with an embedded Redis; and what it lacks."""
