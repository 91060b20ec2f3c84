"""What tests share: worlds, an oracle, real processes."""
