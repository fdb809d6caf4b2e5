"""Why: floors, mistakes, gradients."""
