"""A node: one process that holds replicas of shards and searches them."""
