"""One run: joins data and model."""
