"""What the same recipe takes on many GPUs, on paper: `spoutnik plan` (docs/scale.md). Nothing here needs a GPU or a network."""
