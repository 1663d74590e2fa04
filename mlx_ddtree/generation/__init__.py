"""What callers see of decoding: streams, sessions, several answers at once, options, statistics, drawings."""
