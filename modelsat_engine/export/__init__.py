"""Bundles: what training hands to the runtime, as files."""
