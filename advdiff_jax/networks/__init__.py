"""Score networks in Flax Linen, used through the pure pair `init` / `apply`: (x [B, ...], t [B]) -> [B, ...]."""
