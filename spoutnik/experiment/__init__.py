"""An experiment: a grid of variants of a recipe and of seeds, and the findings that are decided on it."""
