"""Getting a model's files, and only the weights that are needed."""
