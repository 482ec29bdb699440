"""A listing becomes a dataset on disk: in shards, resumable, verified."""
