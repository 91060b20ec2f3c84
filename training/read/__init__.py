"""Readers of the files that people have: interactions, and titles of items."""
