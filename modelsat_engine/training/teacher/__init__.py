"""A teacher: an ensemble on frozen encoders that says, of every training pair, what somebody would expect who has not
seen it. A router that learns from outcomes and from these expectations learns fewer outcomes by heart."""
