"""The Yahoo Streaming Benchmark: ad events through a broker, counted by campaign and window into Redis."""
