"""A peer-to-peer, content-addressed hub for models and datasets."""
