"""Programs that read exports: whether they compute what Spoutnik computes."""
