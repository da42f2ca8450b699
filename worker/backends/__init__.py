"""What answers: a model of our own engine, or a server elsewhere."""
