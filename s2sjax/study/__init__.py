"""Arms x seeds to paired records; joins train and report."""
