"""From noise to data: the time grid (`grids`), the step rule (`steps`) and the scan (`sample`) are separate."""
