"""Text pairs to batches of ids; knows no model."""
