"""The router: asks every node at once, merges, certifies; the public services of a cluster."""
