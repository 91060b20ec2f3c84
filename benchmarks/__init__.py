"""Measurements: what README and the notes quote is printed by a command in here."""
