"""The config of a run: YAML, overrides and a Registry in, one validated RunConfig out."""
