"""Files of prompts in, results out, a format a file."""
