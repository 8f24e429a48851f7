"""Learning: losses (pure tensor functions), packed batches, the optimizers, the step loop, and one file per method."""
