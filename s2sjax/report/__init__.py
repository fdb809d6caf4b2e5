"""Results to statistics, tables and pictures; imports no JAX."""
