"""The same service on Ray Serve. Imported on request only."""
