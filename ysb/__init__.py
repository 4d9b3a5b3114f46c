"""The Yahoo Streaming Benchmark: reserved for the pipeline that reads Frieda topics; holds no code yet."""
