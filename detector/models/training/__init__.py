"""What makes a model: data, architectures, the training loop, export."""
