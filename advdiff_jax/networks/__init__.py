"""Score networks in Flax Linen, used through the pure functions `init` and `apply`: (x [B, ...], t [B]) -> [B, ...]."""
