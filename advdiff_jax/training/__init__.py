"""The train step, its spread over devices (only `parallel` knows them), checkpoints and the host loop."""
