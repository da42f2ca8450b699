"""Files of prompts, read as streams."""
