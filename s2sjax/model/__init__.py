"""Ids to logits to ids; knows no text."""
