"""The network. Knows nothing of training or serving."""
