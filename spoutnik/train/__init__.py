"""Learning: losses (pure tensor functions), packed batches, the optimisers, the step loop, and one file per method."""
