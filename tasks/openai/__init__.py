"""OpenAI's interface: what its bodies ask, the objects that answer them, and batches of them."""
