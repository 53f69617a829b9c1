"""The train step, its spread over devices (`parallel` alone knows them), checkpoints and the host loop."""
