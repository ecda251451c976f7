"""What runs a model while serving."""
