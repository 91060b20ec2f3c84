"""The ranking service: features of candidates, models, and the second stage of a recommendation."""
